"""What an operator may set, and what is refused with its key and line."""

from __future__ import annotations

from datetime import timedelta

import pytest

from balancer.domain.restart import LOSSES_ONLY, RestartMode, RestartRule
from balancer.settings import BUILT_IN_PROFILES, BalancerSettings, parse_frame_rate
from balancer.settings_reload import lost_after, restart_rule
from gpu_balancer.runtime.settings_file import SettingsError, load_settings, parse_settings
from gpu_balancer.runtime.settings_sections import format_cores, parse_cores, parse_ports


def _parsed(text: str) -> BalancerSettings:
    return parse_settings(text, BalancerSettings, source="balancer.toml")


def _mistakes(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        _parsed(text)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_no_file_means_a_unix_socket_loopback_and_local_agents() -> None:
    settings = load_settings(None, BalancerSettings)
    assert settings.server.listen == ("unix:{state_dir}/balancer.sock", "127.0.0.1:50051")
    assert settings.server.http == "127.0.0.1:8080"
    assert (settings.agents.launch, settings.agents.orphan_exit_s) == ("local", 60.0)
    assert (settings.devices, settings.cpu_devices) == ((), ())


def test_by_default_no_local_file_and_no_private_network_is_read() -> None:
    settings = load_settings(None, BalancerSettings)
    assert settings.inputs.roots == settings.outputs.roots == ()
    assert not settings.inputs.allow_private_networks
    assert not settings.outputs.allow_private_networks


def test_the_example_of_the_architecture_loads() -> None:
    settings = _parsed("""
[server]
listen = ["unix:{state_dir}/balancer.sock", "127.0.0.1:50051", "[::1]:50051"]
http = "127.0.0.1:8080"
[placement]
policy = "least_weighted_load"
factors = { decode = 1, scale = 1, encode = 5 }
headroom = 0.9
[agents]
launch = "local"
[[devices]]
match = "GPU-7f3c2a10-*"
weight = 66
[[cpu_devices]]
name = "cpu-0"
cores = "0-7"
weight = 40
[inputs]
roots = ["/srv/media"]
allow_private_networks = false
[outputs]
roots = ["/srv/out"]
[ffmpeg]
candidates = ["bundled", "/usr/bin/ffmpeg"]
""")
    assert settings.devices[0].weight == 66
    assert parse_cores(settings.cpu_devices[0].cores) == tuple(range(8))


@pytest.mark.parametrize("weight", ["-1", "10001", "nan", "inf", "66.5", '"66"', "true", "0x1" + "0" * 5000])
@pytest.mark.parametrize(("table", "entry"), [("devices", 'match = "a"'), ("cpu_devices", 'name = "a"\ncores = "0"')])
def test_an_impossible_weight_is_refused_with_its_line(weight: str, table: str, entry: str) -> None:
    (mistake,) = _mistakes(f"[[{table}]]\n{entry}\nweight = {weight}\n")
    line = 3 + entry.count("\n")
    assert mistake.startswith(f"line {line}: {table}[0].weight: must be ")


@pytest.mark.parametrize("weight", [0, 1, 100, 10_000])
def test_a_weight_goes_from_0_to_10000(weight: int) -> None:
    settings = _parsed(f'devices = [{{ match = "a", weight = {weight} }}, {{ match = "b" }}]')
    assert settings.devices[0].weight == weight


@pytest.mark.parametrize(
    "figure", ["0", "-1", "nan", "inf", "1e9", '"many"', "true", "1_000_000_000_001", f"1{'0' * 40}"]
)
@pytest.mark.parametrize("table", ["devices", "cpu_devices"])
@pytest.mark.parametrize(
    "key", ["decode_pixels_per_second", "scale_pixels_per_second", "encode_pixels_per_second", "memory_mib"]
)
def test_an_absurd_capacity_is_refused_with_its_key_and_line(figure: str, table: str, key: str) -> None:
    entry = 'match = "a"' if table == "devices" else 'name = "a"\ncores = "0"'
    (mistake,) = _mistakes(f"[[{table}]]\n{entry}\n{key} = {figure}\n")
    assert mistake.startswith(f"line {3 + entry.count(chr(10))}: {table}[0].{key}: must be ")


@pytest.mark.parametrize("sessions", ["0", "-3", "nan", "2.5", "10_001"])
def test_an_absurd_number_of_encoder_sessions_is_refused(sessions: str) -> None:
    (mistake,) = _mistakes(f'[[devices]]\nmatch = "a"\nencoder_sessions = {sessions}\n')
    assert mistake.startswith("line 3: devices[0].encoder_sessions: must be ")


@pytest.mark.parametrize("window", ["0", "-1", "nan", "inf", "11", '"1"'])
def test_a_measurement_takes_a_hundredth_of_a_second_to_ten(window: str) -> None:
    (mistake,) = _mistakes(f"[calibration]\nwindow_s = {window}\n")
    assert mistake.startswith("line 2: calibration.window_s: must be ")


@pytest.mark.parametrize("headroom", ["0", "0.0", "1e-320", "0.049", "-0.1", "1.01", "nan", "inf", '"0.9"'])
def test_headroom_is_a_share_of_a_twentieth_up_to_1(headroom: str) -> None:
    (mistake,) = _mistakes(f"[placement]\nheadroom = {headroom}\n")
    assert mistake.startswith("line 2: placement.headroom: must be ")


def test_headroom_may_be_all_there_is() -> None:
    assert _parsed("[placement]\nheadroom = 1").placement.headroom == 1.0
    assert _parsed("[placement]\nheadroom = 0.05").placement.headroom == 0.05


@pytest.mark.parametrize("factors", ["decode = -1", "encode = 1.5", "scale = 1001", "encoding = 5"])
def test_cost_factors_are_whole_and_not_negative(factors: str) -> None:
    (mistake,) = _mistakes(f"[placement]\nfactors = {{ {factors} }}\n")
    assert mistake.startswith("line 2: placement.factors.")


def test_factors_that_are_all_0_are_refused() -> None:
    (mistake,) = _mistakes("[placement]\nfactors = { decode = 0, scale = 0, encode = 0 }\n")
    assert mistake == "line 2: placement.factors: must not all be 0: every device would look idle"


def test_cpu_devices_share_neither_name_nor_core() -> None:
    text = """[[cpu_devices]]
name = "cpu-0"
cores = "0-3"
[[cpu_devices]]
name = "cpu-0"
cores = "4,3"
"""
    assert _mistakes(text) == [
        "line 5: cpu_devices[1].name: must not be used by two CPU devices: 'cpu-0'",
        "line 6: cpu_devices[1].cores: must not share cores with other CPU devices: core 3 is cpu-0's",
    ]


@pytest.mark.parametrize("cores", ["", "x", "3-1", "0,0", "0-2,1", "-1", "0--2", "5000", "1,", "٣"])
def test_cores_that_make_no_sense_are_refused(cores: str) -> None:
    (mistake,) = _mistakes(f'[[cpu_devices]]\nname = "cpu-0"\ncores = "{cores}"\n')
    assert mistake.startswith("line 3: cpu_devices[0].cores: must ")


@pytest.mark.parametrize(("text", "cores"), [("0", (0,)), ("0-3,9", (0, 1, 2, 3, 9)), ("9, 1-2", (1, 2, 9))])
def test_cores_are_read_as_taskset_writes_them(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores
    assert parse_cores(format_cores(cores)) == cores


def test_core_sets_are_written_short() -> None:
    assert format_cores((9, 0, 1, 2, 5)) == "0-2,5,9"


@pytest.mark.parametrize(
    "text",
    [
        'devices = [{ match = "a", weight = 0 }, { match = "b", weight = 0 }]',
        'cpu_devices = [{ name = "a", cores = "0", weight = 0 }]',
        'devices = [{ match = "a", weight = 0 }]\ncpu_devices = [{ name = "a", cores = "0", weight = 0 }]',
    ],
)
def test_weights_that_are_all_0_are_refused_also_beside_other_mistakes(text: str) -> None:
    assert any("only weights of 0" in mistake for mistake in _mistakes(text))
    both = _mistakes(f"{text}\n[placement]\nheadroom = 2\n")
    assert len(both) == 2


def test_a_weight_of_0_beside_one_that_follows_from_capacity_is_fine() -> None:
    assert len(_parsed('devices = [{ match = "a", weight = 0 }, { match = "*" }]').devices) == 2


def test_two_entries_for_the_same_match_are_refused() -> None:
    (mistake,) = _mistakes('[[devices]]\nmatch = "GPU-A"\n[[devices]]\nmatch = "gpu-a"\n')
    assert mistake == "line 4: devices[1].match: must not be given twice: 'gpu-a'"


@pytest.mark.parametrize(
    "address", ["0.0.0.0:50051", "[::]:50051", ":50051", "10.0.0.1:50051", "myhost:50051", "127.1:50051"]
)
def test_an_address_that_others_reach_is_refused_with_the_reason(address: str) -> None:
    for text in (f'[server]\nlisten = ["{address}"]', f'[server]\nhttp = "{address}"'):
        (mistake,) = _mistakes(text)
        assert mistake.startswith("line 2: server.")
        assert "no identities yet" in mistake


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/x.sock"])
def test_loopback_and_unix_sockets_are_listened_on(address: str) -> None:
    assert _parsed(f'[server]\nlisten = ["{address}"]').server.listen == (address,)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('listen = ["127.0.0.1:5", "127.0.0.1:5"]', 2),
        ('listen = ["127.0.0.1:5", "localhost:5"]', 2),
        ('listen = ["127.0.0.1:5"]\nhttp = "127.0.0.1:5"', 3),
        ('listen = ["127.0.0.1:8080"]', 1),
        ('listen = ["unix:/a", "unix:/a"]', 2),
    ],
)
def test_one_port_is_listened_on_once(text: str, line: int) -> None:
    (mistake,) = _mistakes(f"[server]\n{text}\n")
    assert mistake.startswith(f"line {line}: server.")
    assert "twice" in mistake


def test_both_loopbacks_may_have_the_same_port_and_http_may_be_off() -> None:
    settings = _parsed('[server]\nlisten = ["127.0.0.1:8080", "[::1]:8080", "127.0.0.1:0"]\nhttp = ""\n')
    assert settings.server.http == ""


def test_agents_are_local_or_have_addresses() -> None:
    assert "at least one agent" in _mistakes('[agents]\nlaunch = "external"')[0]
    assert "external" in _mistakes('[agents]\naddresses = ["127.0.0.1:9"]')[0]
    settings = _parsed('[agents]\nlaunch = "external"\naddresses = ["unix:{state_dir}/a.sock", "127.0.0.1:9"]')
    assert len(settings.agents.addresses) == 2


def test_a_stop_waits_longer_than_a_stalled_input() -> None:
    (mistake,) = _mistakes("[inputs]\nread_timeout_s = 9\n")
    assert mistake == "line 2: inputs.read_timeout_s: must be below sessions.stop_timeout_s, 8, not 9"
    (mistake,) = _mistakes("[sessions]\nstop_timeout_s = 5\n")
    assert mistake == "line 2: sessions.stop_timeout_s: must be above inputs.read_timeout_s, 5, not 5"
    assert _parsed("[inputs]\nread_timeout_s = 9\n[sessions]\nstop_timeout_s = 12").sessions.stop_timeout_s == 12


@pytest.mark.parametrize(
    "text",
    [
        '[inputs]\nroots = ["media"]',
        '[inputs]\nprotocols = ["gopher"]',
        '[inputs]\nroots = ["/a", "/a"]',
        "[inputs]\nprobe_timeout_s = 0",
        "[inputs]\nprobe_timeout_s = inf",
        "[ffmpeg]\ncandidates = []",
        '[ffmpeg]\ncandidates = ["ffmpeg"]',
        '[ingest]\nhost = "0.0.0.0"',
        '[ingest]\nrtmp_ports = "80-90"',
        '[ingest]\nrtmp_ports = "2000-1000"',
        '[log]\nlevel = "loud"',
        '[telemetry]\notlp_endpoint = "collector:4317"',
        "[telemetry]\ntrace_ratio = 1.5",
        "[uploads]\nmax_size_mib = 0",
        '[placement]\npolicy = "Least Weighted"',
        '[[cpu_devices]]\nname = "CPU 0"',
        "[[devices]]\nweight = 1",
    ],
)
def test_other_impossible_values_are_refused_with_their_line(text: str) -> None:
    assert all(mistake.startswith("line ") for mistake in _mistakes(text))


def test_sessions_outlive_losses_by_default_and_nothing_else() -> None:
    assert restart_rule(BalancerSettings()) == LOSSES_ONLY
    assert lost_after(BalancerSettings()) == timedelta(minutes=1)


def test_restarts_are_set_as_they_are_written() -> None:
    settings = _parsed(
        '[restart]\nmode = "always"\nmax_restarts = 9\nfirst_backoff_s = 0\nlongest_backoff_s = 0.5\n'
        'reasons = ["KILLED"]\nlost_after_s = 0'
    )
    assert restart_rule(settings) == RestartRule(
        mode=RestartMode.ALWAYS,
        max_restarts=9,
        first_backoff=timedelta(),
        longest_backoff=timedelta(seconds=0.5),
        reasons=frozenset({"KILLED"}),
    )
    assert lost_after(settings) is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('mode = "sometimes"', "mode"),
        ("max_restarts = 0", "max_restarts"),
        ("max_restarts = 1001", "max_restarts"),
        ("first_backoff_s = -1", "first_backoff_s"),
        ("first_backoff_s = 3601", "first_backoff_s"),
        ("longest_backoff_s = 0.5", "longest_backoff_s"),
        ("reasons = []", "reasons"),
        ('reasons = ["KILLED", "DISK_FULL"]', "reasons[1]"),
        ('reasons = ["KILLED", "KILLED"]', "reasons[1]"),
        ("lost_after_s = -1", "lost_after_s"),
    ],
)
def test_a_restart_that_cannot_be_is_refused_by_key(text: str, key: str) -> None:
    (mistake,) = _mistakes(f"[restart]\n{text}")
    assert mistake.startswith(f"line 2: restart.{key}: ")


def test_ports_are_a_range() -> None:
    assert parse_ports("19350-19352") == range(19350, 19353)
    assert list(parse_ports("19350")) == [19350]


def test_profiles_of_the_file_stand_beside_those_that_ship_and_replace_their_namesakes() -> None:
    settings = _parsed("""
[[profiles.mine.renditions]]
id = "small"
height = 240
[[profiles.ladder-h264.renditions]]
id = "only"
codec = "h264"
quality = 23
""")
    assert settings.profiles.keys() == BUILT_IN_PROFILES.keys() | {"mine"}
    assert [rendition.id for rendition in settings.profiles["ladder-h264"].renditions] == ["only"]
    assert settings.profiles["ladder-hevc"] == BUILT_IN_PROFILES["ladder-hevc"]


@pytest.mark.parametrize("name", ["ladder-h264", "ladder-hevc", "ladder-av1"])
def test_a_ladder_that_ships_goes_down_in_size_and_bit_rate(name: str) -> None:
    renditions = BUILT_IN_PROFILES[name].renditions
    heights = [rendition.height or 0 for rendition in renditions]
    rates = [rendition.bit_rate_bps or 0 for rendition in renditions]
    assert heights == [1080, 720, 480, 360]
    assert rates == sorted(rates, reverse=True)
    assert {rendition.codec for rendition in renditions} == {name.removeprefix("ladder-")}


@pytest.mark.parametrize(
    ("rendition", "key"),
    [
        ("width = 1281", "width"),
        ("height = 8", "height"),
        ("width = 100000", "width"),
        ('frame_rate = "0"', "frame_rate"),
        ('frame_rate = "30/0"', "frame_rate"),
        ('frame_rate = "1000"', "frame_rate"),
        ("bit_rate_bps = 5", "bit_rate_bps"),
        ("quality = 52", "quality"),
        ('codec = "av1"\nquality = 64', "quality"),
        ("quality = 20\nbit_rate_bps = 1000000", "quality"),
        ("bit_rate_bps = 1000000\nmax_bit_rate_bps = 900000", "max_bit_rate_bps"),
        ("bit_depth = 9", "bit_depth"),
        ('codec = "vp9"', "codec"),
        ('video = "passthrough"\nheight = 720', "height"),
        ('video = "none"\naudio = { codec = "none" }', "audio.codec"),
        ("audio = { channels = 9 }", "audio.channels"),
    ],
)
def test_an_impossible_rendition_is_refused_by_key(rendition: str, key: str) -> None:
    (mistake,) = _mistakes(f'[[profiles.mine.renditions]]\nid = "a"\n{rendition}\n')
    assert f"profiles.mine.renditions[0].{key}: must " in mistake


def test_renditions_of_a_profile_have_names_of_their_own() -> None:
    (mistake,) = _mistakes('[profiles.mine]\nrenditions = [\n{ id = "a" },\n{ id = "a" },\n]')
    assert mistake == "line 4: profiles.mine.renditions[1].id: must not be used twice in a profile: 'a'"


def test_a_profile_has_a_plain_name_and_a_rendition() -> None:
    assert "must have a name" in _mistakes('[[profiles."My Ladder".renditions]]\nid = "a"')[0]
    assert "must have at least 1 item" in _mistakes("[profiles.mine]\nrenditions = []")[0]
    crowd = ",".join(f'{{ id = "r{index}" }}' for index in range(17))
    (mistake,) = _mistakes(f"[profiles.mine]\nrenditions = [{crowd}]")
    assert mistake == "line 2: profiles.mine.renditions: must have at most 16 items, not an array of 17"


@pytest.mark.parametrize(("text", "rate"), [("30", (30, 1)), ("30000/1001", (30000, 1001)), ("240", (240, 1))])
def test_a_frame_rate_is_exact(text: str, rate: tuple[int, int]) -> None:
    assert parse_frame_rate(text) == rate
