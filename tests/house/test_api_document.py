"""docs/api.md lists exactly what the contract has and what the code can answer."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from house_sources import nodes_of, python_files, text_of

from agents.pipelines.exit_reasons import FailureReason
from balancer.domain.restart import INPUT_ENDED
from gpu_balancer.client import methods
from gpu_balancer.runtime.failures import Reason
from gpu_balancer.v1 import (
    agent_service_pb2,
    balancer_service_pb2,
    device_service_pb2,
    session_pb2,
    session_service_pb2,
    upload_service_pb2,
)

TEXT = text_of(Path("docs/api.md"))
CLIENT_SERVICES = [session_service_pb2, device_service_pb2, upload_service_pb2, balancer_service_pb2]
NAME = re.compile(r"[A-Z][A-Z_]+[A-Z]")


def rows(heading: str) -> list[list[str]]:
    """Gives the rows of every table below a heading, without backquotes."""
    section = re.search(rf"^#+ {heading}$(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert section, heading
    lines = [line for line in section[1].splitlines() if re.match(r"\|(?! *-)", line) and "---" not in line]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_methods_are_those_of_the_contract() -> None:
    service = ""
    listed: list[tuple[str, str]] = []
    for name, method, _ in rows("Services")[1:]:
        service = name or service
        listed.append((service, method))
    contract = [
        (name, method.name)
        for module in CLIENT_SERVICES
        for name, service_descriptor in module.DESCRIPTOR.services_by_name.items()
        for method in service_descriptor.methods
    ]
    assert listed == contract
    assert "`AgentService`" in TEXT
    assert list(agent_service_pb2.DESCRIPTOR.services_by_name) == ["AgentService"]


def test_the_reasons_are_those_of_the_catalogue_with_their_codes() -> None:
    assert [(reason, code) for reason, code, _ in rows("Errors")[1:]] == [
        (reason.name, reason.code.name) for reason in Reason
    ]


def reasons_given_by(path: str) -> set[str]:
    """Gives the names that a module has as text: reasons that are in no enum."""
    return {
        node.value
        for node in nodes_of(Path(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value)
    }


def reasons_of_faults() -> set[str]:
    """Gives the reasons with which displays, browsers and pages say that they cannot be recorded."""
    faults = {"DisplayUnavailable", "PageFault", "StageFault"}
    found = set()
    for path in python_files("agents"):
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in faults:
                texts = [value.value for value in node.args[:1] if isinstance(value, ast.Constant)]
                found |= {str(text) for text in texts}
    # Those that Chromium's own errors, and ends, lead to stand in tables.
    tables = reasons_given_by("agents/browsers/page_errors.py") | reasons_given_by("agents/browsers/chromium_page.py")
    return found | {name for name in tables if name.startswith("PAGE_")}


def test_the_reasons_of_failed_sessions_are_those_that_agent_and_balancer_give() -> None:
    given = {str(reason) for reason in FailureReason}
    given |= reasons_given_by("agents/sessions/endings.py")
    given |= reasons_given_by("agents/recordings/failures.py")
    given |= reasons_of_faults()
    given |= reasons_given_by("balancer/domain/lifecycle.py") | {INPUT_ENDED}
    given |= reasons_given_by("balancer/domain/reachability.py") - {"UNREACHABLE"}
    given |= reasons_given_by("balancer/domain/drain.py") | reasons_given_by("balancer/device_health.py")
    listed = [reason for reason, _ in rows("Why sessions fail")[1:]]
    assert set(listed) == given
    assert len(listed) == len(set(listed))


def test_no_other_module_makes_failures_of_sessions_with_reasons_of_its_own() -> None:
    """The test above would not see them."""
    known = {"agents/sessions/endings.py", "agents/recordings/failures.py"}
    known |= {"balancer/domain/lifecycle.py", "balancer/domain/reachability.py"}
    for path in python_files("balancer", "agents"):
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Failure":
                texts = [keyword for keyword in node.keywords if isinstance(keyword.value, ast.Constant)]
                own = [keyword for keyword in texts if keyword.arg == "reason"]
                assert not own or str(path) in known, f"{path}:{node.lineno}"


def test_the_states_are_those_of_the_contract() -> None:
    states = [name.removeprefix("SESSION_STATE_") for name in session_pb2.SessionState.keys()]  # noqa: SIM118
    tables = rows("States and conditions")
    listed = [row[0] for row in tables if len(row) == 3][1:]
    assert listed == states[1:]


def test_the_conditions_are_those_that_are_set() -> None:
    tables = rows("States and conditions")
    listed = {row[0] for row in tables if len(row) == 2} - {"condition"}
    made = set()
    for path in python_files("balancer", "agents"):
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Condition":
                for keyword in node.keywords:
                    if keyword.arg == "type" and isinstance(keyword.value, ast.Constant):
                        made.add(keyword.value.value)
                    if keyword.arg == "type" and isinstance(keyword.value, ast.Name):
                        made.add(keyword.value.id)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "condition":
                made |= {value.value for value in node.args[:1] if isinstance(value, ast.Constant)}
    assert listed == {name for name in made if NAME.fullmatch(str(name))}


def test_the_shown_node_program_calls_methods_of_the_contract() -> None:
    program = re.search(r"^```javascript\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert program
    known = {
        method.name
        for module in CLIENT_SERVICES
        for one in module.DESCRIPTOR.services_by_name.values()
        for method in one.methods
    }
    called = re.findall(r"\bsessions\.(\w+)\(", program[1])
    assert called
    assert {name[0].upper() + name[1:] for name in called} <= known


def test_clients_know_every_method() -> None:
    """The library's table of calls and the document's cannot differ either."""
    table = {value.path for value in vars(methods).values() if isinstance(value, methods.Method)}
    listed = set()
    service = ""
    for name, method, _ in rows("Services")[1:]:
        service = name or service
        listed.add(f"/gpu_balancer.v1.{service}/{method}")
    assert table == listed
