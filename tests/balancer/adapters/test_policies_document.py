"""docs/policies.md names every policy that ships, and its template is a package that works as it stands."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from domain.devices import gpu, ladder

from balancer.adapters.guarded_policy import GuardedPolicy
from balancer.adapters.policy_plugins import load_policy, policy_names
from balancer.domain.decision import PlacementSettings
from balancer.domain.ids import SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.placement import place

REPOSITORY = Path(__file__).resolve().parents[3]
TEXT = (REPOSITORY / "docs/policies.md").read_text("utf-8")
FILES = dict(re.findall(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the template was built and installed, as a user would, but without a network."""
    package, site = tmp_path_factory.mktemp("our-policies"), tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        (package / name).write_text(text)
    flags = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *flags, "--target", str(site), str(package)]
    subprocess.run(command, check=True, timeout=100)
    (site / "test_our_policies.py").write_text(FILES["test_our_policies.py"])
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    for module in ("our_policies", "test_our_policies"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def test_every_policy_that_ships_has_its_row_and_its_paragraph() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert set(rows) == {name for name in policy_names() if load_policy(name).__module__.startswith("balancer.domain.")}
    assert [name for name in rows if f"**`{name}`**" not in TEXT] == []


def test_the_template_is_three_files() -> None:
    assert FILES.keys() == {"pyproject.toml", "our_policies.py", "test_our_policies.py"}


@pytest.mark.usefixtures("installed")
def test_the_template_places_sessions_under_the_guard() -> None:
    faults: list[tuple[str, str]] = []
    policy = load_policy("gentle_starts", on_fault=lambda name, kind: faults.append((name, kind)))
    assert isinstance(policy, GuardedPolicy)
    views = [gpu(device_id="GPU-1"), gpu(device_id="GPU-2", weight=10)]
    ledger = Ledger()
    policy.on_settings(PlacementSettings())
    policy.on_devices(views)
    for number, expected in enumerate(["GPU-1", "GPU-2", "GPU-1", "GPU-2"]):
        session_id = SessionId(str(number))
        policy.on_session_created(session_id, ladder())
        decision = place(ladder(), views, ledger, policy, PlacementSettings(), {})
        assert (decision.device_id, decision.policy, policy.fallback) == (expected, "gentle_starts", None)
        assert decision.reservation is not None
        ledger.book(session_id, decision.reservation)
        policy.on_session_placed(session_id, decision.reservation.device_id, ladder())
    assert faults == []


@pytest.mark.usefixtures("installed")
def test_the_templates_own_test_passes() -> None:
    module = importlib.import_module("test_our_policies")
    tests = [getattr(module, name) for name in dir(module) if name.startswith("test_")]
    assert tests
    for test in tests:
        test()
