"""Policies are found by name: the shipped ones always, an operator's by entry point."""

from __future__ import annotations

import asyncio
import importlib
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from domain.devices import gpu, ladder

from balancer.adapters import policy_plugins
from balancer.adapters.policy_plugins import PolicyUnavailable, load_policy, policy_names
from balancer.device_plan import device_rules
from balancer.device_registry import DeviceRegistry
from balancer.domain.ledger import Ledger
from balancer.domain.policies import LeastWeightedLoad, Wowza
from balancer.placer import Placer
from balancer.settings import BalancerSettings
from balancer.settings_reload import SettingsReload, placement_rules
from balancer.usable_settings import make_policy
from fakes.device_news import FakeDeviceNews
from fakes.engine_house import engine_house
from fakes.session_store import FakeSessionStore
from gpu_balancer.runtime.settings_file import SettingsError, parse_settings

PLUGIN = """
import threading
from balancer.domain.policies import Choice, IndifferentPolicy

class First(IndifferentPolicy):
    name = "first"
    def choose(self, candidates, workload):
        return Choice(device_id=candidates[0].view.id, scores={})

class Deaf:
    name = "deaf"
    def choose(self, candidates, workload):
        raise NotImplementedError

class Nameless(First):
    name = None

class Stuck(First):
    def choose(self, candidates, workload):
        threading.Event().wait()

BEGUN, COMING_UP, TRIED = threading.Event(), threading.Event(), []

class Slow(First):
    def __init__(self):
        TRIED.append(threading.current_thread())
        BEGUN.set()
        COMING_UP.wait()

class Broken:
    def __init__(self):
        raise RuntimeError("no licence")
"""


def install(folder: Path, package: str, **entries: str) -> None:
    """Puts a package with entry points where Python looks for packages."""
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (metadata / "entry_points.txt").write_text(f"[gpu_balancer.policies]\n{lines}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path with an operator's policies in it."""
    (tmp_path / "operator_policies.py").write_text(PLUGIN)
    install(
        tmp_path,
        "operator_policies",
        first="operator_policies:First",
        deaf="operator_policies:Deaf",
        nameless="operator_policies:Nameless",
        broken="operator_policies:Broken",
        stuck="operator_policies:Stuck",
        slow="operator_policies:Slow",
        missing="operator_policies:Missing",
        absent="no_such_module:Policy",
        wowza="operator_policies:First",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "operator_policies", raising=False)
    return tmp_path


def test_the_shipped_policies_are_there_even_without_metadata() -> None:
    assert isinstance(load_policy("least_weighted_load"), LeastWeightedLoad)
    assert isinstance(load_policy("wowza"), Wowza)
    assert load_policy("wowza") is not load_policy("wowza")


@pytest.mark.parametrize("name", ["least_weighted_load", "wowza"])
def test_a_shipped_policy_goes_by_the_name_it_is_loaded_by(name: str) -> None:
    assert load_policy(name).name == name


def test_an_operators_policy_is_found_by_its_entry_point(site: Path) -> None:
    assert load_policy("first").name == "first"
    assert policy_names()[:2] == ("least_weighted_load", "adaptive")
    assert "first" in policy_names()


@pytest.mark.usefixtures("site")
def test_a_shipped_name_cannot_be_taken_over() -> None:
    assert isinstance(load_policy("wowza"), Wowza)


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "there is none of that name. Try one of least_weighted_load, adaptive, "),
        ("absent", "no_such_module"),
        ("missing", "AttributeError"),
        ("broken", "RuntimeError: no licence"),
        ("deaf", "it lacks on_settings, on_devices, on_session_created, on_session_placed, on_session_ended"),
        ("nameless", "it lacks name"),
    ],
)
def test_a_policy_that_cannot_be_used_says_why(name: str, told: str) -> None:
    with pytest.raises(PolicyUnavailable) as caught:
        load_policy(name)
    message = str(caught.value)
    assert message.startswith(f"Cannot use the placement policy '{name}'")
    assert told in message
    assert "Try " in message


def test_a_name_that_two_packages_give_is_refused(site: Path) -> None:
    install(site, "other_policies", first="other_policies:First")
    with pytest.raises(PolicyUnavailable, match="both go by that name"):
        load_policy("first")


@pytest.mark.usefixtures("site")
def test_a_policy_that_does_not_come_up_keeps_one_thread_however_often_it_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policy_plugins, "LOAD_TIMEOUT", timedelta(seconds=0.3))
    with pytest.raises(PolicyUnavailable, match=r"did not come up within 0\.3 s"):
        load_policy("slow")
    monkeypatch.setattr(policy_plugins, "LOAD_TIMEOUT", timedelta(seconds=30))
    for _ in range(3):
        with pytest.raises(PolicyUnavailable, match="has not come up since it was tried before"):
            load_policy("slow")
    package = sys.modules["operator_policies"]
    (thread,) = package.TRIED
    package.COMING_UP.set()
    thread.join(30)
    assert load_policy("slow").name == "slow", "what came up late can be used"


@pytest.mark.usefixtures("site")
async def test_a_reload_makes_the_policy_once_and_the_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "balancer.toml"
    path.write_text('[placement]\npolicy = "slow"\n')
    package = importlib.import_module("operator_policies")
    settings = BalancerSettings()
    async with engine_house(FakeSessionStore()) as house:
        reload = SettingsReload(
            path=path,
            settings=settings,
            registry=DeviceRegistry(device_rules(settings)),
            engine=house.engine,
            on_applied=lambda _: None,
        )
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            outcome = tasks.create_task(reload.reload())
            await asyncio.to_thread(package.BEGUN.wait)
            package.COMING_UP.set()
        assert outcome.result().version == 2
        assert house.engine.rules.policy.name == "slow"
    assert [thread.name for thread in package.TRIED] == ["policy slow"]


@pytest.mark.usefixtures("site")
def test_the_settings_say_how_long_an_operators_policy_may_take() -> None:
    text = '[placement]\npolicy = "stuck"\npolicy_timeout_ms = 7\n'
    settings = parse_settings(text, BalancerSettings, source="balancer.toml")
    faults: list[tuple[str, str]] = []
    rules = placement_rules(
        settings,
        policy=make_policy(settings),
        version=1,
        host_capacity={},
        on_policy_fault=lambda policy, kind: faults.append((policy, kind)),
    )
    decision = Placer(rules, FakeDeviceNews(gpu()), Ledger()).consider(ladder())
    assert decision.policy_fault.startswith("It did not answer within 7 ms")
    assert (decision.device_id, decision.policy) == ("GPU-1", "least_weighted_load")
    assert faults == [("stuck", "hung")]


@pytest.mark.parametrize("value", ["0", "5001", "1.5", '"50"', "true", "nan"])
def test_a_timeout_of_no_use_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"line 2: placement\.policy_timeout_ms"):
        parse_settings(f"[placement]\npolicy_timeout_ms = {value}\n", BalancerSettings, source="balancer.toml")
