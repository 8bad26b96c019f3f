"""Where sessions may write."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from agents.media_access import outputs as outputs_module
from agents.media_access.outputs import check_outputs
from agents.pipelines.job import Container, FileOutput, HlsOutput, JobOutput, PushOutput
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.settings_sections import OutputSettings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An output root."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(root: Path) -> OutputSettings:
    """Settings that allow the root and public hosts."""
    return OutputSettings(roots=(str(root),))


def file(path: object, *, overwrite: bool = False) -> FileOutput:
    return FileOutput(id="o", path=str(path), container=Container.MP4, overwrite=overwrite)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def refusal(settings: OutputSettings, *outputs: JobOutput) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        await check_outputs(outputs, settings)
    assert len(caught.value.violations) == 1
    return caught.value


async def test_a_file_under_a_root_and_artifacts_may_be_written(root: Path, settings: OutputSettings) -> None:
    (root / "inner").mkdir()
    (root / "empty").mkdir()
    good = [
        file(root / "a.mp4"),
        file(root / "inner" / "b.mp4"),
        file("artifact.mp4"),
        file("deep/er/artifact.mp4"),
        HlsOutput(id="h", path=str(root / "hls")),
        HlsOutput(id="e", path=str(root / "empty")),
        HlsOutput(id="a", path="hls"),
    ]
    await check_outputs(good, settings)
    assert names_in(root) == ["empty", "inner"], "nothing was written"


async def test_an_absolute_path_outside_the_roots_is_refused(
    root: Path, tmp_path: Path, settings: OutputSettings
) -> None:
    (root / "away").symlink_to(tmp_path)
    for path in ["/etc/x.mp4", tmp_path / "x.mp4", root / "away" / "x.mp4", root / ".." / "x.mp4", f"{root}2/x.mp4"]:
        failure = await refusal(settings, file("a.mp4"), file(path))
        assert failure.reason is Reason.OUTPUT_NOT_ALLOWED, path
        assert failure.violations[0].field == "session.transcode.outputs[1].file.path"
    failure = await refusal(settings, HlsOutput(id="h", path="/etc/hls"))
    assert failure.violations[0].field == "session.transcode.outputs[0].hls.path"


@pytest.mark.parametrize("path", ["../x.mp4", "a/../../x.mp4", "", ".", "a\nb.mp4", "a/"])
async def test_an_artifact_stays_inside_its_folder(settings: OutputSettings, path: str) -> None:
    assert (await refusal(settings, file(path))).reason is Reason.INVALID_REQUEST


async def test_an_existing_file_is_kept_unless_it_may_be_replaced(root: Path, settings: OutputSettings) -> None:
    (root / "a.mp4").write_text("precious")
    assert (await refusal(settings, file(root / "a.mp4"))).reason is Reason.OUTPUT_EXISTS
    await check_outputs([file(root / "a.mp4", overwrite=True)], settings)
    assert (root / "a.mp4").read_text() == "precious"


async def test_a_dangling_link_counts_as_a_file(root: Path, settings: OutputSettings) -> None:
    (root / "a.mp4").symlink_to("/nowhere/x")
    assert (await refusal(settings, file(root / "a.mp4"))).reason is Reason.OUTPUT_EXISTS


async def test_a_folder_is_never_replaced_by_a_file(root: Path, settings: OutputSettings) -> None:
    (root / "a.mp4").mkdir()
    failure = await refusal(settings, file(root / "a.mp4", overwrite=True))
    assert (failure.reason, "it is a folder" in failure.message) == (Reason.OUTPUT_UNWRITABLE, True)


async def test_a_presentation_needs_a_folder_of_its_own(root: Path, settings: OutputSettings) -> None:
    (root / "old").mkdir()
    (root / "old" / "master.m3u8").touch()
    (root / "file").touch()
    for name in ["old", "file"]:
        failure = await refusal(settings, HlsOutput(id="h", path=str(root / name)))
        assert failure.reason is Reason.OUTPUT_EXISTS


@pytest.mark.parametrize("mode", [0o775, 0o757])
async def test_a_presentation_does_not_go_where_others_may_write(
    root: Path, settings: OutputSettings, mode: int
) -> None:
    (root / "shared").mkdir()
    (root / "shared").chmod(mode)
    failure = await refusal(settings, HlsOutput(id="h", path=str(root / "shared")))
    assert (failure.reason, "others may write" in failure.message) == (Reason.OUTPUT_NOT_ALLOWED, True)


async def test_a_presentation_does_not_go_into_the_folder_of_another_user(
    root: Path, settings: OutputSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "theirs").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    failure = await refusal(settings, HlsOutput(id="h", path=str(root / "theirs")))
    assert (failure.reason, "another user's" in failure.message) == (Reason.OUTPUT_NOT_ALLOWED, True)


async def test_a_missing_folder_is_told(root: Path, settings: OutputSettings) -> None:
    failure = await refusal(settings, file(root / "no" / "a.mp4"))
    assert (failure.reason, "does not exist" in failure.message) == (Reason.OUTPUT_UNWRITABLE, True)


async def test_a_folder_without_permission_is_told(
    root: Path, settings: OutputSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's answer is replaced because tests may run as root, who may write anywhere."""
    monkeypatch.setattr(outputs_module.os, "access", lambda *_a, **_k: False)
    failure = await refusal(settings, file(root / "a.mp4"))
    assert (failure.reason, "may not write into" in failure.message) == (Reason.OUTPUT_UNWRITABLE, True)


async def test_a_full_disk_is_told(root: Path, settings: OutputSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs_module.os, "statvfs", lambda _path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    assert (await refusal(settings, file(root / "a.mp4"))).reason is Reason.DISK_FULL


async def test_two_outputs_do_not_share_a_place(root: Path, settings: OutputSettings) -> None:
    (root / "inner").symlink_to(root)
    failure = await refusal(settings, file(root / "a.mp4"), file(root / "inner" / "a.mp4"))
    assert failure.reason is Reason.INVALID_REQUEST
    assert failure.violations[0].field == "session.transcode.outputs[1].file.path"
    assert (await refusal(settings, file("a.mp4"), file("./a.mp4"))).reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("url", ["rtmp://127.0.0.1/live/s3cretkey", "srt://localhost:9000?passphrase=s3cretkey1"])
async def test_pushes_into_private_networks_are_refused_without_telling_the_key(
    settings: OutputSettings, url: str
) -> None:
    failure = await refusal(settings, PushOutput(id="p", url=url))
    assert failure.reason is Reason.OUTPUT_NOT_ALLOWED
    assert failure.violations[0].field == "session.transcode.outputs[0].push.url"
    assert "[outputs]" in failure.message
    assert "s3cretkey" not in failure.message + failure.violations[0].description


async def test_a_push_to_one_server_twice_is_refused_without_telling_the_key() -> None:
    settings = OutputSettings(allow_private_networks=True)
    push = PushOutput(id="p", url="rtmp://127.0.0.1/live/s3cretkey")
    failure = await refusal(settings, push, push)
    assert failure.reason is Reason.INVALID_REQUEST
    assert "s3cretkey" not in failure.message


@pytest.mark.parametrize(
    "url", ["http://1.1.1.1/x", "file:///etc/x", "rtsp://1.1.1.1/x", "srt://1.1.1.1:9?mode=listener"]
)
async def test_pushes_speak_the_protocols_of_the_settings(settings: OutputSettings, url: str) -> None:
    assert (await refusal(settings, PushOutput(id="p", url=url))).reason is Reason.OUTPUT_NOT_ALLOWED


def test_checking_as_the_user_who_writes() -> None:
    assert os.access in os.supports_effective_ids
