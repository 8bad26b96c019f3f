"""Rules of building a command, each on its own; whole commands are in the golden files."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_cases import (
    AAC,
    CASES,
    CLIP,
    COPY,
    DEEP,
    LADDER,
    LADDER_FILES,
    LIVE,
    NONE,
    OPUS,
    SECOND,
    SILENT,
    h264,
    job,
    mp4,
    video,
)
from pipeline_devices import ADA_DECODES, NEW_FFMPEG, OLD_FFMPEG, UUID, ada, capability, cpu, hopper, nvidia, software

from agents.pipelines.capability import PipelineDevice
from agents.pipelines.command import redacted_argv
from agents.pipelines.command_builder import build_command
from agents.pipelines.ffmpeg_features import features_of, version_number
from agents.pipelines.job import (
    Container,
    FileOutput,
    FrameRate,
    HlsOutput,
    IngestInput,
    IngestProtocol,
    InputFacts,
    Job,
    PushOutput,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
    VideoPassthrough,
)
from agents.pipelines.muxers import tee_text
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason

if TYPE_CHECKING:
    from agents.pipelines.capability import FfmpegBuild
    from agents.pipelines.command import Command


def _build(asked: Job, device: PipelineDevice, ingest_url: str | None = None) -> Command:
    return build_command(
        asked, device, artifacts_dir="/artifacts", progress_path="/session/progress", ingest_url=ingest_url
    )


def _refused(asked: Job, device: PipelineDevice) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        _build(asked, device)
    assert caught.value.message.startswith("Cannot ")
    assert " Try " in caught.value.message
    return caught.value


def _value(command: Command, option: str) -> str:
    return command.argv[command.argv.index(option) + 1]


def _one(renditions: tuple[Rendition, ...], facts: InputFacts = CLIP, *, software_encode: bool = False) -> Job:
    return job("clip.mp4", facts, renditions, (mp4("a.mp4"),), software_encode=software_encode)


def test_a_gpu_is_chosen_by_its_uuid_and_a_cpu_device_by_nothing() -> None:
    assert _build(_one(LADDER[:1]), ada()).env == {"CUDA_VISIBLE_DEVICES": UUID}
    assert _build(_one(LADDER[:1]), cpu()).env == {}


def test_each_stream_is_encoded_once_however_many_outputs_share_it() -> None:
    outputs = (*LADDER_FILES, mp4("again.mp4"), HlsOutput(id="hls", path="hls"))
    argv = _build(job("clip.mp4", CLIP, LADDER, outputs), cpu()).argv
    assert argv.count("libx264") == 3
    assert argv.count("aac") == 1
    assert argv.count("tee") == 1


def test_outputs_that_share_nothing_encoded_are_outputs_of_their_own() -> None:
    silent = tuple(replace(rung, audio=NONE) for rung in LADDER)
    argv = _build(job("clip.mp4", CLIP, silent, LADDER_FILES), cpu()).argv
    assert "tee" not in argv
    assert argv.count("-movflags") == 3


def test_sharing_joins_outputs_through_others() -> None:
    """One and two share nothing, but both share with three."""
    renditions = (video("a", h264(180), NONE), video("b", h264(90), NONE))
    outputs = (mp4("one.mp4", "a"), mp4("two.mp4", "b"), mp4("three.mp4"))
    argv = _build(job("clip.mp4", CLIP, renditions, outputs), cpu()).argv
    assert argv.count("libx264") == 2
    assert argv.count("tee") == 1


def test_copied_streams_need_no_sharing() -> None:
    source = Rendition(id="source", video=VideoPassthrough(), audio=COPY)
    argv = _build(job("clip.mp4", CLIP, (source,), (mp4("a.mp4"), mp4("b.mp4"))), cpu()).argv
    assert "tee" not in argv
    assert argv.count("0:V:0") == 2


def test_a_rendition_that_goes_nowhere_is_not_made() -> None:
    argv = _build(job("clip.mp4", CLIP, LADDER, LADDER_FILES[:1]), cpu()).argv
    assert argv.count("libx264") == 1
    assert "split" not in " ".join(argv)


def test_threads_are_shared_by_pixels_and_fit_the_cores() -> None:
    command = _build(job("clip.mp4", CLIP, LADDER, LADDER_FILES), cpu(core_count=16))
    assert [_value(command, f"-threads:v:{index}") for index in range(3)] == ["9", "6", "3"]
    assert _value(_build(_one(LADDER[:1]), cpu(core_count=3)), "-threads:v:0") == "3"


def test_a_gpu_without_an_encoder_refuses_until_software_is_allowed() -> None:
    error = _refused(_one(LADDER[:1]), hopper())
    assert error.reason is PipelineErrorReason.NO_CAPABILITY
    assert error.field == "renditions[0].encode.codec"
    assert "allow_software_encode" in error.message
    argv = _build(_one(LADDER[:1], software_encode=True), hopper()).argv
    assert "libx264" in argv
    assert "hwdownload" in " ".join(argv)


def test_a_gpu_encodes_in_hardware_even_where_software_is_allowed() -> None:
    assert "h264_nvenc" in _build(_one(LADDER[:1], software_encode=True), ada()).argv


def test_only_what_hardware_cannot_encode_goes_to_software() -> None:
    both = (video("a", h264(90)), video("b", h264(90, bit_depth=10)))
    argv = _build(_one(both, software_encode=True), ada()).argv
    assert "h264_nvenc" in argv
    assert "libx264" in argv


def test_a_refusal_tells_what_the_probe_was_told() -> None:
    broken = capability(NEW_FFMPEG, VideoCodec.AV1, hardware=True, works=False, message="No capable devices found")
    device = replace(nvidia(()), capabilities=(broken,))
    error = _refused(_one((video("a", h264(90, codec=VideoCodec.AV1)),)), device)
    assert "No capable devices found" in error.message


def test_ten_bit_h264_needs_a_gpu_that_was_proved_to_do_it() -> None:
    assert _refused(_one((video("a", h264(90, bit_depth=10)),)), ada()).reason is PipelineErrorReason.NO_CAPABILITY
    able = nvidia([(VideoCodec.H264, 10)])
    argv = _build(_one((video("a", h264(90, bit_depth=10)),)), able).argv
    assert "h264_nvenc" in argv
    assert "format=p010le" in " ".join(argv)


def test_the_preferred_ffmpeg_that_has_everything_is_taken() -> None:
    first = [capability(NEW_FFMPEG, VideoCodec.H264, hardware=True)]
    second = [capability(OLD_FFMPEG, codec, hardware=True) for codec in (VideoCodec.H264, VideoCodec.HEVC)]
    device = replace(nvidia(()), capabilities=(*first, *second), ffmpeg_builds=(NEW_FFMPEG, OLD_FFMPEG))
    assert _build(_one((video("a", h264(90)),)), device).argv[0] == NEW_FFMPEG.path
    hevc = video("b", h264(90, codec=VideoCodec.HEVC))
    assert _build(_one((video("a", h264(90)), hevc)), device).argv[0] == OLD_FFMPEG.path


def test_hardware_in_a_less_preferred_ffmpeg_comes_before_software() -> None:
    encoders = [capability(OLD_FFMPEG, VideoCodec.H264, hardware=True), *software(NEW_FFMPEG)]
    device = replace(nvidia(()), capabilities=tuple(encoders), ffmpeg_builds=(NEW_FFMPEG, OLD_FFMPEG))
    assert _build(_one((video("a", h264(90)),), software_encode=True), device).argv[0] == OLD_FFMPEG.path


def test_encoders_of_different_programs_cannot_be_mixed() -> None:
    split = (
        capability(NEW_FFMPEG, VideoCodec.H264, hardware=True),
        capability(OLD_FFMPEG, VideoCodec.HEVC, hardware=True),
    )
    device = replace(nvidia(()), capabilities=split, ffmpeg_builds=(NEW_FFMPEG, OLD_FFMPEG))
    error = _refused(_one((video("a", h264(90)), video("b", h264(90, codec=VideoCodec.HEVC)))), device)
    assert "no single ffmpeg" in error.message


@pytest.mark.parametrize(
    ("facts", "in_hardware"),
    [
        (CLIP, True),
        (replace(CLIP, chroma=None, bit_depth=None), True),
        (replace(CLIP, video_codec=None), False),
        (replace(CLIP, video_codec=VideoCodec.OTHER), False),
        (replace(CLIP, bit_depth=10), False),
        (DEEP, False),
        (replace(CLIP, chroma="4:4:4"), False),
        (replace(CLIP, rotation_degrees=90), False),
        (replace(CLIP, width=319), False),
        (replace(CLIP, height=179), False),
    ],
)
def test_hardware_decodes_only_what_it_was_proved_to(facts: InputFacts, in_hardware: bool) -> None:
    argv = _build(_one(LADDER[:1], facts), ada()).argv
    assert ("-hwaccel" in argv) is in_hardware
    assert ("hwupload_cuda" in " ".join(argv)) is not in_hardware


@pytest.mark.parametrize(("width", "even"), [(320, False), (319, True)])
def test_only_pictures_of_even_sides_are_brought_to_a_gpu(width: int, even: bool) -> None:
    """Its filters spoil others without a word."""
    turned = replace(CLIP, width=width, rotation_degrees=90)
    graph = _value(_build(_one(LADDER[:1], turned), ada()), "-filter_complex")
    before_upload = graph.partition("hwupload_cuda")[0]
    assert before_upload.startswith("[0:V:0]scale=w='max(2,2*round(iw/2))':h='max(2,2*round(ih/2))',") is even


def _scalers(asked: VideoEncoding, build: FfmpegBuild) -> str:
    """What stands in a graph in device memory until the picture has its size."""
    device = replace(ada(), ffmpeg_builds=(build,))
    return _value(_build(_one((video("a", asked),)), device), "-filter_complex").partition(",setsar")[0]


def test_a_side_that_stays_is_doubled_first_where_the_scaler_would_blacken_the_picture() -> None:
    """As of a page stretched in one direction; in all other cases the first scaler hands pictures on untouched."""
    width, height = "max(2,2*round(90*dar/2))", "90"
    last = f"scale_cuda=w='{width}':h='{height}':format=nv12:passthrough=0"
    doubling = f"w='iw*(1+eq({width},iw)*lt({height},ih))':h='ih*(1+lt({width},iw)*eq({height},ih))'"
    assert _scalers(h264(90), NEW_FFMPEG) == f"[0:V:0]scale_cuda={doubling},{last}"
    assert _scalers(h264(90), replace(NEW_FFMPEG, scaler_blackens=False)) == f"[0:V:0]{last}"


def test_oblong_pixels_are_made_square_without_the_filters_that_would_blacken_the_picture() -> None:
    """As those of a DVD, 720 pixels that become 640."""
    assert _scalers(VideoEncoding(), NEW_FFMPEG).endswith(":format=nv12:passthrough=0:use_filters=0")
    assert _scalers(VideoEncoding(), replace(NEW_FFMPEG, scaler_blackens=False)).endswith("passthrough=0")


def test_nothing_visits_a_gpu_that_neither_decodes_nor_encodes_it() -> None:
    argv = _build(_one(LADDER[:1], DEEP, software_encode=True), hopper()).argv
    assert "cuda" not in " ".join(argv)


def test_decoding_alone_is_no_reason_for_the_device_when_all_is_passed_through() -> None:
    source = Rendition(id="source", video=VideoPassthrough(), audio=COPY)
    assert "cuda" not in " ".join(_build(_one((source,)), nvidia((), ADA_DECODES)).argv)


def test_live_files_can_be_played_whenever_they_end() -> None:
    live = job(UriInput(uri="rtmp://a.example/b/c"), LIVE, LADDER[:1], (mp4("a.mp4"),))
    assert _value(_build(live, cpu()), "-movflags") == "+hybrid_fragmented"
    assert "frag_keyframe" in _value(_build(live, cpu(OLD_FFMPEG)), "-movflags")
    assert _value(_build(_one(LADDER[:1]), cpu()), "-movflags") == "+faststart"


def test_a_url_of_known_length_is_no_live_input() -> None:
    finite = job(UriInput(uri="https://a.example/b.mp4"), CLIP, LADDER[:1], (mp4("a.mp4"),))
    assert _value(_build(finite, cpu()), "-movflags") == "+faststart"
    endless = replace(finite, facts=LIVE)
    assert _value(_build(endless, cpu()), "-movflags") == "+hybrid_fragmented"


@pytest.mark.parametrize(
    ("uri", "option"),
    [
        ("http://a.example/b.m3u8", "-rw_timeout"),
        ("https://a.example/b.mp4", "-rw_timeout"),
        ("rtmp://a.example/b/c", "-rw_timeout"),
        ("rtmps://a.example/b/c", "-rw_timeout"),
        ("rtsp://a.example/b", "-timeout"),
        ("srt://a.example:9000", "-rw_timeout"),
    ],
)
def test_every_wait_for_a_network_is_shorter_than_a_stop(uri: str, option: str) -> None:
    command = _build(job(UriInput(uri=uri), LIVE, LADDER[:1], (mp4("a.mp4"),)), cpu())
    assert int(_value(command, option)) == 5_000_000
    assert command.argv.index(option) < command.argv.index("-i")


def test_live_protocols_are_read_at_their_own_rate() -> None:
    live = job(UriInput(uri="srt://a.example:9000", native_rate=True), LIVE, LADDER[:1], (mp4("a.mp4"),))
    assert "-re" not in _build(live, cpu()).argv
    assert "-re" in _build(job(UriInput(uri="/a.mp4", native_rate=True), CLIP, LADDER[:1], (mp4("a.mp4"),)), cpu()).argv


def test_an_input_of_a_strange_scheme_is_refused_without_its_secrets() -> None:
    error = _refused(job(UriInput(uri="ftp://me:secret@a.example/b"), CLIP, LADDER[:1], (mp4("a.mp4"),)), cpu())
    assert error.field == "input.uri"
    assert "secret" not in error.message


def test_an_ingest_without_a_url_is_refused() -> None:
    error = _refused(job(IngestInput(protocol=IngestProtocol.RTMP), LIVE, LADDER[:1], (mp4("a.mp4"),)), cpu())
    assert error.field == "input.ingest"


def test_an_srt_publisher_s_url_is_turned_round() -> None:
    asked = job(IngestInput(protocol=IngestProtocol.SRT), LIVE, LADDER[:1], (mp4("a.mp4"),))
    command = _build(asked, cpu(), "srt://127.0.0.1:9000?mode=caller&passphrase=abcdefghij")
    assert _value(command, "-i") == "srt://127.0.0.1:9000?mode=listener&passphrase=abcdefghij"


def test_an_input_without_sound_gives_no_sound_and_an_unknown_one_perhaps() -> None:
    assert "0:a:0" not in " ".join(_build(_one(LADDER[:1], SILENT), cpu()).argv)
    assert "0:a:0?" in _build(_one(LADDER[:1], replace(CLIP, has_audio=None)), cpu()).argv
    assert "0:a:0" in _build(_one(LADDER[:1]), cpu()).argv


def test_a_rendition_of_nothing_is_refused() -> None:
    sound = Rendition(id="sound", video=None)
    assert _refused(_one((sound,), SILENT), cpu()).reason is PipelineErrorReason.INPUT_INVALID
    assert _refused(_one((replace(sound, audio=NONE),)), cpu()).reason is PipelineErrorReason.UNSUPPORTED


def test_files_outside_the_artifacts_are_written_in_a_private_folder_beside_their_name() -> None:
    command = _build(job("clip.mp4", CLIP, LADDER[:1], (mp4("/srv/out/a.mp4", overwrite=True),)), cpu())
    move = command.output_moves[0]
    assert move.part_path == "/srv/out/.gpu-balancer-s1-2/part-0.mp4"
    assert move.final_path == "/srv/out/a.mp4"
    assert move.overwrite
    assert command.argv[-1] == move.part_path


@pytest.mark.parametrize(
    ("outputs", "field"),
    [
        ((mp4("../a.mp4"),), "outputs[0].path"),
        ((mp4("/srv/../a.mp4"),), "outputs[0].path"),
        ((HlsOutput(id="h", path="100%"),), "outputs[0].hls.path"),
        ((mp4("a.mp4"), mp4("./a.mp4")), "outputs[1]"),
        ((mp4("a.mp4", "nothing"),), "outputs[0].renditions"),
        ((PushOutput(id="p", url="ftp://a.example/b", renditions=("180p",)),), "outputs[0].push.url"),
        ((PushOutput(id="p", url="rtmp://a.example/b/c"),), "outputs[0].renditions"),
    ],
)
def test_an_output_that_cannot_be_is_refused(outputs: tuple[FileOutput, ...], field: str) -> None:
    assert _refused(job("clip.mp4", CLIP, LADDER, outputs), cpu()).field == field


@pytest.mark.parametrize(
    ("rendition", "facts", "output", "build"),
    [
        (video("a", h264(90, codec=VideoCodec.AV1)), CLIP, "ts", NEW_FFMPEG),
        (video("a", h264(90, codec=VideoCodec.AV1)), CLIP, "rtmp", OLD_FFMPEG),
        (video("a", h264(90, codec=VideoCodec.HEVC)), CLIP, "rtmp", OLD_FFMPEG),
        (video("a", h264(90), OPUS), CLIP, "rtmp", OLD_FFMPEG),
        (Rendition(id="a", video=VideoPassthrough()), replace(CLIP, video_codec=VideoCodec.VP9), "ts", NEW_FFMPEG),
        (video("a", h264(90), COPY), replace(CLIP, audio_codec="pcm_s16le"), "ts", NEW_FFMPEG),
        (video("a", h264(90), COPY), replace(CLIP, audio_codec="vorbis"), "hls", NEW_FFMPEG),
        (Rendition(id="a", video=VideoPassthrough()), replace(CLIP, video_codec=VideoCodec.MPEG2), "hls", NEW_FFMPEG),
    ],
)
def test_what_a_container_would_hide_is_refused(
    rendition: Rendition, facts: InputFacts, output: str, build: object
) -> None:
    outputs = {
        "ts": FileOutput(id="o", path="a.ts", container=Container.TS),
        "rtmp": PushOutput(id="o", url="rtmp://a.example/b/c"),
        "hls": HlsOutput(id="o", path="hls"),
    }
    device = cpu(NEW_FFMPEG if build is NEW_FFMPEG else OLD_FFMPEG)
    error = _refused(job("clip.mp4", facts, (rendition,), (outputs[output],)), device)
    assert error.reason is PipelineErrorReason.UNSUPPORTED
    assert error.field == "outputs[0]"


def test_a_new_ffmpeg_pushes_newer_formats() -> None:
    for codec in (VideoCodec.HEVC, VideoCodec.AV1):
        push = PushOutput(id="o", url="rtmp://a.example/b/c")
        argv = _build(job("clip.mp4", CLIP, (video("a", h264(90, codec=codec), OPUS),), (push,)), cpu()).argv
        assert "hvc1" not in argv
        assert argv[-1] == push.url


@pytest.mark.parametrize(("codec", "rate"), [("opus", 44_100), ("aac", 50_000)])
def test_a_sample_rate_that_a_format_has_not_is_refused(codec: str, rate: int) -> None:
    audio = replace(OPUS if codec == "opus" else AAC, sample_rate_hz=rate)
    error = _refused(_one((video("a", h264(90), audio),)), cpu())
    assert error.field == "renditions[0].audio.sample_rate_hz"


def test_an_encoding_of_an_input_format_is_refused() -> None:
    error = _refused(_one((video("a", h264(90, codec=VideoCodec.VP9)),)), cpu())
    assert error.reason is PipelineErrorReason.UNSUPPORTED


def test_no_secret_is_shown() -> None:
    secrets = ("streamkey", "correcthorse", "pa55word", "abcdefghij", "0123456789abcdef", "stream'key|x")
    for case in CASES:
        for device in case.devices.values():
            shown = " ".join(redacted_argv(_build(case.job, device, case.ingest_url)))
            for secret in secrets:
                assert secret not in shown
                assert tee_text(secret) not in shown


def test_folders_are_named_before_what_is_in_them() -> None:
    for case in CASES:
        for device in case.devices.values():
            directories = _build(case.job, device, case.ingest_url).directories
            for place, directory in enumerate(directories):
                assert not any(
                    later != directory and directory.startswith(f"{later}/") for later in directories[place:]
                )


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9.0.2", (9, 0)),
        ("n9.0.2-17-g2a571b6068-20260930", (9, 0)),
        ("5.1.9-0+deb12u1", (5, 1)),
        ("N-119584-g06cee0c681", None),
        ("", None),
    ],
)
def test_versions_are_read_in_every_shape(text: str, number: tuple[int, int] | None) -> None:
    assert version_number(text) == number
    assert features_of(text).hybrid_mp4 == (number is not None and number >= (8, 0))


@given(
    st.integers(min_value=1, max_value=60_000),
    st.integers(min_value=1, max_value=1001),
    st.timedeltas(min_value=timedelta(seconds=0.1), max_value=timedelta(seconds=60)),
    st.sampled_from([VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1]),
)
def test_any_rate_and_interval_gives_whole_group_lengths(
    numerator: int, denominator: int, interval: timedelta, codec: VideoCodec
) -> None:
    rate = FrameRate(numerator=numerator, denominator=denominator)
    asked = _one((video("a", h264(90, codec=codec, frame_rate=rate, keyframe_interval=interval)),))
    length = int(_value(_build(asked, cpu()), "-g:v:0"))
    assert length >= 1
    exact = Fraction(numerator, denominator) * Fraction(interval / timedelta(seconds=1))
    if codec is VideoCodec.AV1:
        assert abs(length - max(exact, 1)) <= 1
    else:
        assert length >= exact


def test_segments_are_cut_where_keyframes_are() -> None:
    asked = job("clip.mp4", CLIP, LADDER, (HlsOutput(id="h", path="hls", segment_duration=SECOND),))
    command = _build(asked, cpu())
    forced = {_value(command, f"-force_key_frames:v:{index}") for index in range(3)}
    assert forced == {"expr:gte(t,n_forced*1)"}
