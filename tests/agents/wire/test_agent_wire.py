"""The agent as a process, over its socket: what the balancer sees, through kills and restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from agent_process import (
    REPOSITORY,
    AgentProcess,
    await_probed,
    ended,
    is_alive,
    plan,
    resident_mib,
    running,
    until,
)

from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.rich_status import failure_from_rpc_error
from gpu_balancer.v1 import agent_service_pb2 as pb
from gpu_balancer.v1 import device_pb2, media_pb2

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


def refused(call, request) -> RequestFailure:
    """Calls, expects a refusal and reads it."""

    def answered() -> None:
        answer = call(request, timeout=20)
        if not hasattr(answer, "SerializeToString"):
            list(answer)

    with pytest.raises(grpc.RpcError) as caught:
        answered()
    failure = failure_from_rpc_error(caught.value)
    assert failure is not None, caught.value
    return failure


def read(stub, name: str, *, offset: int = 0, limit: int = 0) -> tuple[object, bytes]:
    request = pb.AgentServiceReadArtifactRequest(name=name, offset_bytes=offset, limit_bytes=limit)
    answers = list(stub.ReadArtifact(request, timeout=20))
    assert all(len(answer.data) <= 256 * 1024 for answer in answers)
    assert not any(answer.HasField("artifact") for answer in answers[1:])
    return answers[0].artifact, b"".join(answer.data for answer in answers)


def test_an_agent_answers_at_once_and_is_small_when_idle(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected() as stub:
        answered_s = time.monotonic() - agent.started_s
        described = await_probed(stub)
        probed_s = time.monotonic() - agent.started_s
        assert agent.process is not None
        memory_mib = resident_mib(agent.process.pid)
    print(f"answers after {answered_s:.2f} s, probed after {probed_s:.2f} s, {memory_mib:.1f} MiB")
    assert described.identity.id == "cpu-0"
    assert described.identity.kind == device_pb2.DEVICE_KIND_CPU
    assert described.process_id == agent.process.pid
    assert any(item.works and item.codec == media_pb2.VIDEO_CODEC_H264 for item in described.capabilities)
    assert described.ffmpeg_builds[0].candidate == "bundled"
    assert memory_mib <= 70
    assert probed_s < 10
    assert agent.end() == 0


def test_a_transcode_from_launch_to_artifact(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected() as stub:
        await_probed(stub)
        stub.LaunchSession(pb.LaunchSessionRequest(plan=plan(f"{agent.media}/clip.mp4")), timeout=20)
        heard = until(stub, ended("s1"))
        status = heard[-1].attempt
        assert status.outcome == pb.ATTEMPT_OUTCOME_COMPLETED, status
        assert status.progress.frames == 50
        assert status.progress.total_time.ToSeconds() == 2
        listed = stub.ListArtifacts(pb.AgentServiceListArtifactsRequest(session="sessions/s1"), timeout=20).artifacts
        [artifact] = listed
        assert (artifact.name, artifact.media_type) == ("sessions/s1/artifacts/out.mp4", "video/mp4")
        assert artifact.http_path == "/v1/sessions/s1/artifacts/out.mp4"
        assert artifact.final
        content = (agent.folder / "sessions/s1/1/artifacts/out.mp4").read_bytes()
        first, whole = read(stub, artifact.name)
        assert whole == content
        assert first == artifact
        assert read(stub, artifact.name, offset=100, limit=50)[1] == content[100:150]
        assert read(stub, artifact.name, offset=len(content) - 5)[1] == content[-5:]
        request = pb.AgentServiceReadArtifactRequest(name=artifact.name, offset_bytes=len(content) + 1)
        assert refused(stub.ReadArtifact, request).reason is Reason.RANGE_INVALID
        for path in ("../status.json", "../../../agent.toml", "/etc/passwd"):
            request = pb.AgentServiceReadArtifactRequest(name=f"sessions/s1/artifacts/{path}")
            assert refused(stub.ReadArtifact, request).reason is Reason.INVALID_REQUEST
        stub.DeleteSession(pb.AgentServiceDeleteSessionRequest(session="sessions/s1"), timeout=20)
        request = pb.AgentServiceReadArtifactRequest(name=artifact.name)
        assert refused(stub.ReadArtifact, request).reason is Reason.SESSION_NOT_FOUND
    assert agent.end() == 0


def test_a_killed_agent_loses_no_session_and_repeats_none(agent: AgentProcess) -> None:
    agent.start()
    launch = pb.LaunchSessionRequest(plan=plan(f"{agent.media}/clip.mp4", repeat=True))
    with agent.connected() as stub:
        await_probed(stub)
        stub.LaunchSession(launch, timeout=20)
        before = until(stub, running("s1"))[-1]
    program = agent.program_pid("s1")
    assert program is not None
    assert agent.end(signal.SIGKILL) == -signal.SIGKILL
    assert is_alive(program)
    agent.start()
    with agent.connected() as stub:
        caught_up = until(stub, lambda event: event.HasField("caught_up"), after=before.event_number)
        assert len(caught_up) == 1
        assert list(caught_up[0].caught_up.live_attempts) == [pb.AttemptId(session="sessions/s1", attempt=1)]
        stub.LaunchSession(launch, timeout=20)
        assert agent.program_pid("s1") == program
        assert is_alive(program)
        frames = before.attempt.progress.frames
        until(stub, lambda event: event.attempt.progress.frames > frames + 25, after=before.event_number)
        stop = pb.AgentServiceStopSessionRequest(id=launch.plan.id)
        stub.StopSession(stop, timeout=20)
        last = until(stub, ended("s1"), after=before.event_number)[-1]
        assert stub.StopSession(stop, timeout=20).attempt == last.attempt
    assert last.attempt.outcome == pb.ATTEMPT_OUTCOME_STOPPED
    assert last.event_number > before.event_number
    assert last.attempt.running_time == before.attempt.running_time
    assert not is_alive(program)
    assert agent.end() == 0


def test_what_ended_while_no_agent_was_there_is_told_truly_by_the_next(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected() as stub:
        await_probed(stub)
        launch = pb.LaunchSessionRequest(plan=plan(f"{agent.media}/clip.mp4", repeat=True))
        stub.LaunchSession(launch, timeout=20)
        before = until(stub, running("s1"))[-1]
    assert agent.end() == 0
    program = agent.program_pid("s1")
    assert program is not None
    assert is_alive(program)
    os.kill(program, signal.SIGKILL)
    agent.start()
    with agent.connected() as stub:
        heard = until(stub, ended("s1"), after=before.event_number)
    failure = heard[-1].attempt.failure
    assert heard[-1].attempt.outcome == pb.ATTEMPT_OUTCOME_FAILED
    assert (failure.reason, failure.exit_code) == ("KILLED", 137)


def test_fifty_launches_at_once_are_one(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected() as stub:
        await_probed(stub)
        wanted = plan("", repeat=False)
        wanted.transcode.input.ClearField("uri")
        wanted.transcode.input.ingest.protocol = media_pb2.INGEST_PROTOCOL_SRT
        request = pb.LaunchSessionRequest(plan=wanted)
        with ThreadPoolExecutor(50) as pool:
            urls = list(pool.map(lambda _: stub.LaunchSession(request, timeout=20).ingest_url, range(50)))
        assert len(set(urls)) == 1
        assert urls[0].startswith("srt://127.0.0.1:32")
        starting = until(stub, lambda event: event.attempt.ingest_url == urls[0])[-1].attempt
        assert [condition.type for condition in starting.conditions] == ["AWAITING_PUBLISHER"]
        shown = stub.DescribeCommand(pb.DescribeCommandRequest(plan=wanted), timeout=20).argv
        assert not any("passphrase=" in argument and "***" not in argument for argument in shown)
        stub.StopSession(pb.AgentServiceStopSessionRequest(id=wanted.id), timeout=20)
        until(stub, ended("s1"))
        assert len(list((agent.folder / "sessions").glob("*/*"))) == 1
        secret = urls[0].rpartition("=")[2]
        request = pb.AgentServiceReadSessionLogRequest(id=wanted.id)
        lines = [line for answer in stub.ReadSessionLog(request, timeout=20) for line in answer.lines]
        assert not any(secret in line for line in lines)
    assert secret not in agent.log


def test_a_log_is_followed_to_its_end_with_its_secrets_hidden(agent: AgentProcess) -> None:
    agent.configure('[telemetry]\nservice_name = "test"')
    agent.start()
    with agent.connected() as stub:
        await_probed(stub)
        launch = pb.LaunchSessionRequest(plan=plan(f"{agent.media}/clip.mp4", repeat=True))
        launch.plan.transcode.outputs.add(
            id="output-2", push=media_pb2.PushOutput(url="rtmp://127.0.0.1:1/live/verysecretkey")
        )
        failure = refused(stub.LaunchSession, launch)
        assert failure.reason is Reason.OUTPUT_NOT_ALLOWED
        assert "verysecretkey" not in failure.message
        del launch.plan.transcode.outputs[1]
        stub.LaunchSession(launch, timeout=20)
        until(stub, running("s1"))
        log = agent.folder / "sessions/s1/1/log"
        request = pb.AgentServiceReadSessionLogRequest(id=launch.plan.id, follow=True)
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(
                lambda: [line for answer in stub.ReadSessionLog(request, timeout=60) for line in answer.lines]
            )
            with log.open("a") as writer:
                writer.write("Opening rtmp://somewhere/live/verysecretkey for writing\n")
            stub.StopSession(pb.AgentServiceStopSessionRequest(id=launch.plan.id), timeout=20)
            lines = following.result(60)
        assert "Opening rtmp://somewhere/live/*** for writing" in lines
    assert agent.end() == 0


def test_bad_requests_name_their_fields_and_start_nothing(agent: AgentProcess) -> None:
    agent.start()
    clip = f"{agent.media}/clip.mp4"
    with agent.connected() as stub:
        await_probed(stub)
        empty = pb.LaunchSessionRequest(plan=pb.LaunchPlan(id=pb.AttemptId(session="sessions/s1", attempt=1)))
        fields = {violation.field for violation in refused(stub.LaunchSession, empty).violations}
        assert fields == {"plan.transcode.input", "plan.transcode.renditions", "plan.transcode.outputs"}
        nameless = pb.LaunchSessionRequest(plan=plan(clip))
        nameless.plan.id.session = "sessions/../etc"
        assert refused(stub.LaunchSession, nameless).violations[0].field == "plan.id.session"
        for uri, reason in (
            ("/etc/passwd", Reason.INPUT_NOT_ALLOWED),
            (f"{agent.media}/missing.mp4", Reason.INPUT_NOT_FOUND),
            ("http://127.0.0.1:1/x.mp4", Reason.INPUT_NOT_ALLOWED),
        ):
            assert refused(stub.LaunchSession, pb.LaunchSessionRequest(plan=plan(uri))).reason is reason
            request = pb.ProbeInputRequest(input=media_pb2.Input(uri=uri))
            assert refused(stub.ProbeInput, request).reason is reason
        facts = stub.ProbeInput(pb.ProbeInputRequest(input=media_pb2.Input(uri=clip)), timeout=20).facts
        assert (facts.width, facts.height, facts.has_audio) == (320, 180, True)
        outside = media_pb2.Output(file=media_pb2.FileOutput(path="/etc/film.mp4"))
        request = pb.CheckOutputsRequest(outputs=[outside])
        assert refused(stub.CheckOutputs, request).reason is Reason.OUTPUT_NOT_ALLOWED
        inside = media_pb2.Output(file=media_pb2.FileOutput(path=f"{agent.out}/film.mp4"))
        stub.CheckOutputs(pb.CheckOutputsRequest(outputs=[inside]), timeout=20)
        unknown = pb.AgentServiceListArtifactsRequest(session="sessions/unknown")
        assert refused(stub.ListArtifacts, unknown).reason is Reason.SESSION_NOT_FOUND
    assert not (agent.folder / "sessions").exists()


def test_the_golden_probe_runs_again_when_asked(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected() as stub:
        before = await_probed(stub)
        kept = (agent.folder / "probe.json").stat().st_mtime_ns
        (agent.folder / "probe.json").unlink()
        after = stub.ProbeDevice(pb.AgentServiceProbeDeviceRequest(), timeout=120).agent
        assert (agent.folder / "probe.json").stat().st_mtime_ns > kept
    assert after.probed
    assert after.incarnation == before.incarnation
    assert [item.works for item in after.capabilities] == [item.works for item in before.capabilities]


def test_measurements_come_once_a_second_to_whoever_watches(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected() as stub:
        heard = until(stub, lambda event: event.measurements.HasField("compute_utilization_percent"))
    assert heard[-1].event_number == 0
    assert heard[-1].measurements.measure_time.ToSeconds() > 0


def test_an_agent_with_live_sessions_is_not_shut_down_and_one_without_is(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected() as stub:
        await_probed(stub)
        launch = pb.LaunchSessionRequest(plan=plan(f"{agent.media}/clip.mp4", repeat=True))
        stub.LaunchSession(launch, timeout=20)
        assert refused(stub.ShutdownAgent, pb.ShutdownAgentRequest()).reason is Reason.AGENT_BUSY
        stub.StopSession(pb.AgentServiceStopSessionRequest(id=launch.plan.id), timeout=20)
        until(stub, ended("s1"))
        stub.ShutdownAgent(pb.ShutdownAgentRequest(), timeout=20)
        assert agent.process is not None
        assert agent.process.wait(20) == 0


def test_an_agent_that_nobody_needs_ends_by_itself(agent: AgentProcess) -> None:
    agent.configure("[server]\norphan_exit_s = 3")
    agent.start()
    with agent.connected() as stub:
        await_probed(stub)
        launch = pb.LaunchSessionRequest(plan=plan(f"{agent.media}/clip.mp4"))
        stub.LaunchSession(launch, timeout=20)
    assert agent.process is not None
    assert agent.process.wait(60) == 0
    assert (agent.folder / "sessions/s1/1/exit").read_text().strip() == "0"


def test_a_second_agent_on_the_folder_is_refused_in_words(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected():
        second = subprocess.run(
            [sys.executable, "-m", "agents", "--config", str(agent.folder / "agent.toml")],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            timeout=60,
        )
    assert agent.process is not None
    assert second.returncode == 3
    assert f"another agent (process {agent.process.pid}) owns it" in second.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[device]\nkind = "gpu"\n', "device.kind"),
        ("[server]\nlisten = [3]\n", "server.listen"),
        ("nonsense", "line 1"),
    ],
)
def test_wrong_settings_are_refused_with_the_key(agent: AgentProcess, text: str, told: str) -> None:
    path = agent.folder / "wrong.toml"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "agents", "--config", str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=60,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_devices_and_version_are_printed() -> None:
    def run(option: str) -> str:
        argv = [sys.executable, "-m", "agents", option]
        return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=60).stdout

    assert isinstance(json.loads(run("--list-devices")), list)
    assert run("--version").startswith("gpu-balancer-agent ")


def test_a_pace_over_the_wire_holds_a_session_and_is_refused_when_it_is_none(agent: AgentProcess) -> None:
    agent.start()
    with agent.connected() as stub:
        await_probed(stub)
        launch = plan(f"{agent.media}/clip.mp4")
        launch.transcode.input.repeat_forever = True
        launch.speed_limit = 0.1
        stub.LaunchSession(pb.LaunchSessionRequest(plan=launch), timeout=20)
        before = until(stub, running("s1"))[-1].attempt
        for limit in (0.0, -1.0, float("nan"), float("inf")):
            request = pb.PaceSessionRequest(id=launch.id, speed_limit=limit)
            assert refused(stub.PaceSession, request).reason is Reason.INVALID_REQUEST
            launch.speed_limit = limit
            launch.id.session = "sessions/s2"
            assert refused(stub.LaunchSession, pb.LaunchSessionRequest(plan=launch)).reason is Reason.INVALID_REQUEST
            launch.id.session = "sessions/s1"
        unheard_of = pb.AttemptId(session="sessions/s3", attempt=1)
        stub.PaceSession(pb.PaceSessionRequest(id=unheard_of, speed_limit=1), timeout=20)

        def far(event: pb.WatchEventsResponse) -> bool:
            made = event.attempt.progress.out_time.ToTimedelta() - before.progress.out_time.ToTimedelta()
            return made.total_seconds() > 20

        stub.PaceSession(pb.PaceSessionRequest(id=launch.id), timeout=20)
        until(stub, far)
        told = until(stub, lambda event: event.measurements.HasField("foreign_compute_utilization_percent"))[-1]
        assert not told.measurements.HasField("foreign_encoder_sessions")
        stub.StopSession(pb.AgentServiceStopSessionRequest(id=launch.id, discard_outputs=True), timeout=20)
        assert until(stub, ended("s1"))[-1].attempt.outcome == pb.ATTEMPT_OUTCOME_STOPPED
        request = pb.AgentServiceListArtifactsRequest(session="sessions/s1")
        while stub.ListArtifacts(request, timeout=20).artifacts:
            pass
