"""Traces as text: what is written is read again, and what is wrong is told with its line."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from traces import asked, full_ladder, trace_of

from balancer.domain.session import Priority
from balancer.domain.workload import CaptureTask
from balancer.simulation.chance import seeded
from balancer.simulation.fleet import fleet_of_models
from balancer.simulation.trace import TraceSession
from balancer.simulation.trace_file import TraceFileError, read_trace, write_trace
from balancer.simulation.trace_lines import TraceError, header_line, parse_trace, session_line, trace_lines
from balancer.simulation.traffic import KINDS, generate

HEADER = header_line(end_s=1000)
LINE = session_line(asked(5, 10))


def test_a_trace_that_is_written_is_read_again_field_by_field(tmp_path: Path) -> None:
    waiting = TraceSession(
        arrival_s=7.25,
        duration_s=None,
        workload=replace(full_ladder(), real_time=False, reserved_speed=Fraction(3, 2)),
        priority=Priority.BATCH,
        preemptible=True,
        max_wait_s=60.5,
    )
    recorded = CaptureTask(width=1280, height=720, pixels_per_second=27_648_000, browser=False, sound=False)
    recording = replace(
        asked(9, 5), workload=replace(full_ladder(), decode=None, capture=recorded, upload_bits_per_second=7)
    )
    trace = replace(trace_of(asked(0, 10), waiting, asked(8, 20), recording), title="a Friday")
    write_trace(tmp_path / "trace.jsonl", trace)
    assert read_trace(tmp_path / "trace.jsonl") == trace


def test_lines_of_transcodes_have_nothing_that_earlier_programs_do_not_know() -> None:
    assert json.loads(LINE)["workload"].keys() == {
        "decode",
        "scale_pixels_per_second",
        "encodes",
        "allow_software_encode",
    }


def test_generated_traces_survive_their_text() -> None:
    fleet = fleet_of_models(["NVIDIA L4"])
    for kind in KINDS:
        trace = generate(kind, fleet, seeded(3), load=0.5, duration_s=7200)
        again = parse_trace(trace_lines(trace))
        assert [one.workload for one in again.sessions] == [one.workload for one in trace.sessions]
        assert again.end_s == trace.end_s


def changed(**changes: object) -> str:
    return json.dumps({**json.loads(LINE), **changes})


def changed_workload(**changes: object) -> str:
    document = json.loads(LINE)
    return json.dumps({**document, "workload": {**document["workload"], **changes}})


DECODE = {"codec": "h264", "width": 1920, "height": 1080, "pixels_per_second": 62_208_000}
ENCODE = json.loads(LINE)["workload"]["encodes"][0]

CAPTURE = {"width": 1280, "height": 720, "pixels_per_second": 27_648_000}

MALFORMED = [
    ([], 1, "is missing"),
    ([LINE], 1, "no header"),
    (['{"version": 2}'], 1, "has version 2"),
    (['{"version": 1, "trace": "other"}'], 1, 'not "gpu-balancer"'),
    ([HEADER, "{"], 2, "is no JSON"),
    ([HEADER, "[1]"], 2, "is no JSON object"),
    ([HEADER, LINE, "", changed(arrival_s=4)], 4, "out of order"),
    ([HEADER, changed_workload(capture=5)], 2, "no JSON object"),
    ([HEADER, changed_workload(capture={"width": 1280})], 2, "lacks height of capture"),
    ([HEADER, changed_workload(capture={**CAPTURE, "application": "x"})], 2, "a key that capture does not have"),
    ([HEADER, changed(real_time=False, workload={"capture": CAPTURE})], 2, "recordings are in real time"),
    ([HEADER, changed_workload(decode=DECODE, capture=CAPTURE)], 2, "a recording decodes nothing"),
    ([HEADER, changed_workload(decode={**DECODE, "chroma": "9:9:9"})], 2, "a chroma that is none of 4:0:0, 4:1:0"),
    ([HEADER, changed_workload(upload_bits_per_second=-1)], 2, "upload_bits_per_second"),
    (['{"version": 1, "end_s": 1}', LINE], 1, "ends the trace at 1 s"),
    ([HEADER, changed(arrival_s=-1)], 2, "arrival_s"),
    ([HEADER, changed(arrival_s="soon")], 2, 'arrival_s that is no number from 0 to 3.16224e+08: "soon"'),
    ([HEADER, changed(arrival_s=True)], 2, "arrival_s"),
    ([HEADER, LINE.replace("100.0", "NaN", 1)], 2, "has NaN, which is no number"),
    ([HEADER, changed(duration_s=1e300)], 2, "duration_s"),
    ([HEADER, LINE.replace("100.0", "1" * 5000, 1)], 2, "too many digits"),
    ([HEADER, changed(priority="urgent")], 2, 'priority that is none of live, batch: "urgent"'),
    ([HEADER, changed(real_time=1)], 2, "real_time that is neither true nor false"),
    ([HEADER, changed(reserved_speed=2)], 2, "only for sessions with real_time false"),
    ([HEADER, changed(preemptible=True)], 2, "only batch sessions are preemptible"),
    ([HEADER, changed(max_wait_s=-1)], 2, "max_wait_s"),
    ([HEADER, LINE.replace("{", '{"arrival_s": 3, ', 1)], 2, 'has a key more than once: "arrival_s"'),
    ([HEADER, LINE.replace('"codec"', '"width": 3, "codec"', 1)], 2, 'has a key more than once: "width"'),
    (['{"version": 1, "title": "\\ud800"}'], 1, "characters that cannot be shown"),
    (['{"version": 1, "title": "\\u001b[2J"}'], 1, "characters that cannot be shown"),
    (['{"version": 1, "version": 1}'], 1, 'has a key more than once: "version"'),
    ([HEADER, changed(color="red")], 2, 'a key that the session does not have: "color"'),
    ([HEADER, changed(workload=None)], 2, "workload that is no JSON object"),
    ([HEADER, "{}"], 2, "lacks arrival_s"),
    ([HEADER, changed_workload(encodes={})], 2, "list of at most"),
    ([HEADER, changed_workload(encodes=[ENCODE] * 65)], 2, "list of at most 64"),
    ([HEADER, changed_workload(encodes=[{**ENCODE, "codec": "vp9"}])], 2, "nothing encodes"),
    ([HEADER, changed_workload(encodes=[{**ENCODE, "width": 0}])], 2, "width that is no whole number from 1"),
    ([HEADER, changed_workload(encodes=[{**ENCODE, "pixels_per_second": 10**13}])], 2, "pixels_per_second"),
    ([HEADER, changed_workload(decode={"codec": "h264"})], 2, "lacks width of decode"),
    ([HEADER, changed_workload(scale_pixels_per_second=1.5)], 2, "scale_pixels_per_second"),
    ([HEADER, " " * 10 + LINE + "x" * 70_000], 2, "is longer than"),
    ([HEADER, "[" * 60_000], 2, "is no JSON"),
]


@pytest.mark.parametrize(("lines", "line", "told"), MALFORMED)
def test_a_malformed_trace_is_refused_with_its_line(lines: list[str], line: int, told: str) -> None:
    with pytest.raises(TraceError) as caught:
        parse_trace(lines)
    assert caught.value.line == line
    assert told in str(caught.value)


def test_a_file_that_is_no_trace_is_refused_with_its_name_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(f"{HEADER}\n{LINE}\n{changed(priority='x')}\n")
    with pytest.raises(TraceFileError, match=r"broken\.jsonl: line 3 has a priority"):
        read_trace(path)
    path.write_bytes(b"{}\n\xff\xfe\n")
    with pytest.raises(TraceFileError, match="line 2 is not UTF-8"):
        read_trace(path)
    with pytest.raises(TraceFileError, match="No such file"):
        read_trace(tmp_path / "nothing")


def test_more_sessions_of_a_trace_hold_the_fewer_ones() -> None:
    trace = trace_of(*(asked(second, 10) for second in range(200)))
    few, more, many = (trace.scaled(factor, seeded(1)).sessions for factor in (0.3, 0.7, 2.5))
    assert set(few) < set(more) < set(trace.sessions)
    assert 40 < len(few) < 80
    assert 450 < len(many) < 550
    assert list(many) == sorted(many, key=lambda one: one.arrival_s)
    assert all(one.arrival_s <= trace.end_s for one in many)
