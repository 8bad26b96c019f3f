"""A reload tells what it applied and what waits for a restart."""

from __future__ import annotations

import pytest

from balancer.settings import BalancerSettings, diff_settings
from gpu_balancer.runtime.settings_file import parse_settings


def _diff(old: str, new: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    diff = diff_settings(
        parse_settings(old, BalancerSettings, source="old"), parse_settings(new, BalancerSettings, source="new")
    )
    return diff.live_changes, diff.restart_keys


def test_the_same_settings_differ_in_nothing() -> None:
    text = 'devices = [{ match = "a", weight = 5 }]\n[inputs]\nroots = ["/srv"]'
    assert _diff(text, text) == ((), ())
    assert _diff("", "[placement]\nheadroom = 0.9") == ((), ())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("", "[placement]\nheadroom = 0.8", "placement.headroom was 0.9, is 0.8"),
        ("", '[placement]\npolicy = "wowza"', "placement.policy was least_weighted_load, is wowza"),
        ("", "[placement]\nfactors = { encode = 9 }", "placement.factors.encode was 5, is 9"),
        ("", '[log]\nlevel = "debug"', "log.level was info, is debug"),
        (
            'devices = [{match = "a", weight = 5}]',
            'devices = [{match = "a", weight = 6}]',
            "devices[a].weight was 5, is 6",
        ),
        ('devices = [{match = "a", weight = 5}]', 'devices = [{match = "a"}]', "devices[a].weight is no longer given"),
        ("", '[[profiles.mine.renditions]]\nid = "a"', "profiles.mine is new"),
        ('[[profiles.mine.renditions]]\nid = "a"', "", "profiles.mine is gone"),
        ("", '[[profiles.copy.renditions]]\nid = "a"', "profiles.copy changed"),
        (
            '[[cpu_devices]]\nname = "c"\ncores = "0"',
            '[[cpu_devices]]\nname = "c"\ncores = "0"\nencode_pixels_per_second = 7',
            "cpu_devices[c].encode_pixels_per_second was not given, is 7",
        ),
    ],
)
def test_what_placement_uses_is_applied_at_once(old: str, new: str, told: str) -> None:
    assert _diff(old, new) == ((told,), ())


@pytest.mark.parametrize(
    ("new", "key"),
    [
        ('[server]\nhttp = ""', "server.http"),
        ('[inputs]\nroots = ["/srv"]', "inputs.roots"),
        ("[agents]\norphan_exit_s = 5", "agents.orphan_exit_s"),
        ('[log]\nformat = "json"', "log.format"),
        ('[telemetry]\notlp_endpoint = "http://127.0.0.1:1"', "telemetry.otlp_endpoint"),
        ('[[cpu_devices]]\nname = "c"\ncores = "0"\nweight = 3', "cpu_devices[c]"),
    ],
)
def test_what_agents_and_sockets_were_made_with_waits_for_a_restart(new: str, key: str) -> None:
    assert _diff("", new) == ((), (key,))
    assert _diff(new, "") == ((), (key,))


def test_other_cores_wait_for_a_restart_while_the_weight_beside_them_is_applied() -> None:
    old, new = (
        f'[[cpu_devices]]\nname = "c"\ncores = "{cores}"\nweight = {weight}' for cores, weight in ((0, 1), (2, 3))
    )
    assert _diff(old, new) == (("cpu_devices[c].weight was 1, is 3",), ("cpu_devices[c].cores",))


def test_a_new_entry_is_told_also_when_it_says_nothing() -> None:
    assert _diff("", 'devices = [{ match = "a" }]') == (("devices[a] is new",), ())
    assert _diff('devices = [{ match = "a" }]', "") == (("devices[a] is no longer given",), ())


def test_another_order_of_entries_is_a_change() -> None:
    one, two = 'devices = [{ match = "a" }, { match = "b" }]', 'devices = [{ match = "b" }, { match = "a" }]'
    assert _diff(one, two) == (("devices were put into another order",), ())
