"""What comes out and how it is fetched: HLS, uploads, downloads by RPC and by HTTP, live ones too."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from asked import SUCCEEDED, await_state, done, encoded, live_input, make_media, to_hls, transcode_of, with_sound
from daemons import eventually
from decoded import decode

from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemons import RunningDaemon

    from gpu_balancer.client import Client

pytestmark = pytest.mark.process


def cut(media: Path, seconds: float) -> media_pb2.Input:
    """The beginning of the long film."""
    source = media_pb2.Input(uri=str(media / "long.mp4"))
    source.duration.FromTimedelta(timedelta(seconds=seconds))
    return source


def ladder() -> list[media_pb2.Rendition]:
    """Two renditions with a keyframe each second."""
    made = [encoded("large", height=90), encoded("small", height=54)]
    for rendition in made:
        rendition.encode.keyframe_interval.FromTimedelta(timedelta(seconds=1))
    return made


@pytest.mark.parametrize("transport", [False, True], ids=["fmp4", "ts"])
def test_hls_has_a_master_playlist_and_segments_that_begin_together(
    cpu_client: Client, media: Path, tmp_path: Path, transport: bool
) -> None:
    asked = transcode_of(cut(media, 5), *ladder(), outputs=[to_hls("show", transport=transport)])
    _, files = done(cpu_client, asked, tmp_path)
    master = files["show/master.m3u8"].read_text()
    assert re.findall(r"RESOLUTION=(\d+x\d+)", master) == ["160x90", "96x54"]
    suffix = "ts" if transport else "m4s"
    times = []
    for name in ("large", "small"):
        playlist = files[f"show/{name}/index.m3u8"].read_text()
        assert playlist.rstrip().endswith("#EXT-X-ENDLIST")
        lengths = [float(text) for text in re.findall(r"#EXTINF:([\d.]+)", playlist)]
        assert lengths == pytest.approx([1.0] * 5, abs=0.05)
        segments = re.findall(rf"^segment_\d+\.{suffix}$", playlist, re.MULTILINE)
        assert [path for path in files if path.startswith(f"show/{name}/segment_")] == [
            f"show/{name}/{segment}" for segment in segments
        ]
        made = decode(files[f"show/{name}/index.m3u8"])
        assert made.frames == 150
        assert not made.complaints
        times.append([round(time - made.frame_times_s[0], 3) for time in made.key_times_s])
    assert times == [[0, 1, 2, 3, 4]] * 2
    whole = decode(files["show/master.m3u8"])
    assert whole.audio_s == pytest.approx(5, abs=0.2)


def test_a_dvr_window_keeps_its_segments_and_deletes_older_ones(
    cpu_client: Client, media: Path, tmp_path: Path
) -> None:
    one = ladder()[:1]
    _, files = done(cpu_client, transcode_of(cut(media, 12), *one, outputs=[to_hls("show", window_s=3)]), tmp_path)
    playlist = files["show/large/index.m3u8"].read_text()
    assert playlist.count("#EXTINF") == 3
    first = re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", playlist)
    assert first
    assert int(first[1]) == 9
    kept = sorted(path for path in files if "segment_" in path)
    # Those listed, and a few for clients whose playlist is old.
    assert 3 <= len(kept) <= 7
    assert kept[-1].endswith("segment_00011.m4s")


def test_the_command_fetches_hls_as_a_folder_that_plays(cpu_daemon: RunningDaemon, media: Path, tmp_path: Path) -> None:
    told = cpu_daemon.cli(
        *("transcode", media / "clip.mp4", "--hls", tmp_path / "show", "-r", "90p", "-r", "54p:hevc"),
        *("--segment-duration", "2", "-o", tmp_path / "{rendition}.mp4"),
    )
    assert told.returncode == 0, told.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"show", "90p.mp4", "54p.mp4"}
    assert decode(tmp_path / "show" / "master.m3u8").frames == 60
    assert decode(tmp_path / "54p.mp4").video_codec == "hevc"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of some megabytes outside the daemon's roots."""
    made = make_media(tmp_path_factory.mktemp("mine") / "large.mkv", "-c:v", "rawvideo", size="640x360", seconds=1)
    assert made.stat().st_size > 2_000_000
    return made


def test_a_film_that_the_daemon_may_not_read_is_uploaded_and_removed_afterwards(
    cpu_daemon: RunningDaemon, large: Path, tmp_path: Path
) -> None:
    told = cpu_daemon.cli("transcode", large, "-o", tmp_path / "out.mp4", "-r", "90p")
    assert told.returncode == 0, told.stderr
    made = decode(tmp_path / "out.mp4")
    assert (made.frames, made.size) == (30, (160, 90))
    assert not [path for path in (cpu_daemon.state_dir / "uploads").rglob("*") if path.stat().st_size > 1_000_000]


def test_an_upload_that_was_interrupted_goes_on_where_it_ended(cpu_client: Client, large: Path) -> None:
    size = large.stat().st_size
    sent: list[int] = []

    def interrupted(done_bytes: int, _: int) -> None:
        sent.append(done_bytes)
        if done_bytes > size // 2:
            raise OSError("the line was cut")

    with pytest.raises(OSError, match="line was cut"):
        cpu_client.upload_file(large, progress=interrupted)
    sent.clear()
    upload = cpu_client.upload_file(large, progress=lambda done_bytes, _: sent.append(done_bytes))
    assert upload.complete
    assert upload.received_bytes == size
    assert sent[0] > size // 4, "what had been received must not be sent again"
    session = cpu_client.submit(transcode_of(media_pb2.Input(upload=upload.name), encoded(height=54)))
    ended = cpu_client.wait(session)
    assert ended.state == SUCCEEDED, ended.failure
    assert ended.input_facts.width == 640
    cpu_client.delete_upload(upload.name)


def test_an_upload_in_use_stays_and_an_incomplete_one_is_no_input(cpu_client: Client, media: Path, large: Path) -> None:
    begun = cpu_client.create_upload("begun.mp4", 1_000_000)
    with pytest.raises(RequestFailure) as caught:
        cpu_client.create_session(transcode_of(media_pb2.Input(upload=begun.name)))
    assert caught.value.reason is Reason.UPLOAD_INCOMPLETE
    upload = cpu_client.upload_file(media / "clip.mp4")
    source = media_pb2.Input(upload=upload.name, native_rate=True, repeat_forever=True)
    session = cpu_client.create_session(transcode_of(source, encoded(height=36)))
    with pytest.raises(RequestFailure) as caught:
        cpu_client.delete_upload(upload.name)
    assert caught.value.reason is Reason.UPLOAD_IN_USE
    await_state(cpu_client, session.name, session_pb2.SESSION_STATE_RUNNING)
    cpu_client.stop_session(session.name)
    cpu_client.wait(session)
    cpu_client.delete_upload(upload.name)
    cpu_client.delete_upload(begun.name)


@pytest.fixture(scope="module")
def left(cpu_client: Client, media: Path) -> session_pb2.Session:
    """A session that has left a file and HLS."""
    outputs = [
        media_pb2.Output(file=media_pb2.FileOutput(path="films/out.mp4")),
        to_hls("show", segment_s=2),
    ]
    ended = cpu_client.wait(cpu_client.submit(transcode_of(media / "clip.mp4", encoded(height=90), outputs=outputs)))
    assert ended.state == SUCCEEDED, ended.failure
    return ended


@pytest.fixture
def http(cpu_client: Client) -> Iterator[httpx.Client]:
    """An HTTP client of the daemon's port."""
    with httpx.Client(base_url=cpu_client.get_balancer().http_address) as client:
        yield client


def test_artifacts_are_the_same_by_rpc_by_http_and_by_the_command(
    cpu_daemon: RunningDaemon, cpu_client: Client, http: httpx.Client, left: session_pb2.Session, tmp_path: Path
) -> None:
    told = cpu_daemon.cli("artifacts", left.name, "--download", tmp_path / "all", apart=True)
    assert told.returncode == 0, told.stderr
    listed = list(cpu_client.list_artifacts(left.name))
    assert "films/out.mp4" in {one.path for one in listed}
    for artifact in listed:
        fetched = (tmp_path / "all" / artifact.path).read_bytes()
        assert len(fetched) == artifact.size_bytes
        assert artifact.final
        assert b"".join(cpu_client.read_artifact(artifact.name)) == fetched
        answer = http.get(artifact.http_path)
        assert (answer.status_code, answer.content) == (200, fetched)
    again = cpu_daemon.cli("artifacts", left.name, "--download", tmp_path / "all")
    assert again.returncode == 6, "existing files stay"


def test_a_part_of_an_artifact_can_be_had_by_rpc_and_by_http(
    cpu_client: Client, http: httpx.Client, left: session_pb2.Session
) -> None:
    artifact = next(one for one in cpu_client.list_artifacts(left.name) if one.path == "films/out.mp4")
    path, size = artifact.http_path, artifact.size_bytes
    whole = http.get(path).content
    assert b"".join(cpu_client.read_artifact(artifact.name, offset_bytes=1000, limit_bytes=500)) == whole[1000:1500]
    answer = http.get(path, headers={"Range": "bytes=1000-1499"})
    assert (answer.status_code, answer.content) == (206, whole[1000:1500])
    assert answer.headers["content-range"] == f"bytes 1000-1499/{size}"
    assert http.get(path, headers={"Range": "bytes=-100"}).content == whole[-100:]
    beyond = http.get(path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    with pytest.raises(RequestFailure) as caught:
        list(cpu_client.read_artifact(artifact.name, offset_bytes=size + 1))
    assert caught.value.reason is Reason.RANGE_INVALID
    head = http.head(path)
    assert (head.status_code, int(head.headers["content-length"]), head.content) == (200, size, b"")
    assert head.headers["content-type"] == "video/mp4"
    assert http.get(path, headers={"If-None-Match": head.headers["etag"]}).status_code == 304
    assert http.get(path, headers={"Range": "bytes=0-9", "If-Range": '"other"'}).status_code == 200


def test_http_tells_nothing_that_is_no_artifact_and_answers_loopback_names_only(
    http: httpx.Client, left: session_pb2.Session
) -> None:
    below = f"/v1/{left.name}/artifacts/"
    for path in ("absent.mp4", "../launch.json", "%2e%2e/launch.json", "films", "..%2flaunch.json", "%00", ""):
        answer = http.get(f"{below}{path}")
        assert answer.status_code in (400, 404) or (path == "" and answer.status_code == 200), path
        assert "argv" not in answer.text
    assert http.get("/v1/sessions/absent/artifacts/x").status_code == 404
    assert http.get("/healthz", headers={"Host": "attacker.example"}).status_code == 421
    assert http.post("/healthz").status_code == 405


def test_hls_plays_over_http_while_and_after_it_is_made(
    cpu_client: Client, http: httpx.Client, left: session_pb2.Session, media: Path
) -> None:
    base = str(http.base_url).rstrip("/")
    assert decode(f"{base}/v1/{left.name}/artifacts/show/master.m3u8").frames == 60
    asked = transcode_of(live_input(media / "clip.mp4"), *ladder()[:1], outputs=[to_hls("live", window_s=30)])
    session = cpu_client.submit(asked)
    playlist = f"/v1/{session.name}/artifacts/live/large/index.m3u8"

    def playing() -> str:
        answer = http.get(playlist)
        return answer.text if answer.status_code == 200 and answer.text.count("#EXTINF") >= 2 else ""

    text = eventually(playing, "two segments are listed")
    assert "#EXT-X-ENDLIST" not in text
    first = re.findall(r"^(segment_\d+\.m4s)$", text, re.MULTILINE)[0]
    segment = http.get(playlist.replace("index.m3u8", first))
    assert (segment.status_code, segment.headers["content-type"]) == (200, "video/iso.segment")
    assert "no-" in http.get(playlist).headers["cache-control"]
    cpu_client.stop_session(session.name)
    cpu_client.wait(session)
    assert "#EXT-X-ENDLIST" in http.get(playlist).text


def test_a_sound_that_all_renditions_share_is_made_once_in_hls(
    cpu_daemon: RunningDaemon, cpu_client: Client, media: Path, tmp_path: Path
) -> None:
    asked = transcode_of(
        media / "clip.mp4",
        *(with_sound(one, "aac") for one in ladder()),
        outputs=[to_hls("show", segment_s=2)],
    )
    ended, files = done(cpu_client, asked, tmp_path)
    argv = json.loads((cpu_daemon.attempt_folder(ended.name) / "launch.json").read_text())["argv"]
    assert argv.count("aac") == 1
    assert "show/audio/index.m3u8" in files
    assert files["show/master.m3u8"].read_text().count("#EXT-X-MEDIA:TYPE=AUDIO") == 1
