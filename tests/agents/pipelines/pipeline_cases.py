"""The table of golden cases: jobs broad enough that every option in use stands in some command."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from pipeline_devices import OLD_FFMPEG, ada, cpu, hopper

from agents.pipelines.capability import PipelineDevice
from agents.pipelines.job import (
    AudioCodec,
    AudioRendition,
    Container,
    EncodingSpeed,
    FileOutput,
    Fit,
    FrameRate,
    HlsOutput,
    HlsSegmentFormat,
    IngestInput,
    IngestProtocol,
    InputFacts,
    Job,
    JobInput,
    JobOutput,
    PushOutput,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
    VideoPassthrough,
)

SECOND = timedelta(seconds=1)
FPS25 = FrameRate(numerator=25, denominator=1)
CLIP = InputFacts(
    width=320,
    height=180,
    frame_rate=FPS25,
    video_codec=VideoCodec.H264,
    bit_depth=8,
    chroma="4:2:0",
    has_audio=True,
    audio_codec="aac",
    duration=timedelta(seconds=2),
    format="mov,mp4,m4a,3gp,3g2,mj2",
    rotation_degrees=0,
)
SILENT = replace(CLIP, has_audio=False, audio_codec=None)
DEEP = replace(SILENT, bit_depth=10, chroma="4:2:2")
TURNED = replace(CLIP, width=180, height=320, rotation_degrees=270)
OBLONG = replace(CLIP, width=352, height=288, video_codec=VideoCodec.MPEG2, audio_codec="mp2", format="mpegts")
LIVE = replace(CLIP, duration=None)
AAC, OPUS = AudioRendition(), AudioRendition(codec=AudioCodec.OPUS, bit_rate_bps=96_000)
COPY, NONE = AudioRendition(codec=AudioCodec.COPY), AudioRendition(codec=AudioCodec.NONE)

Expected = dict[str, tuple[str, ...]]
"""By path: each stream as "codec WIDTHxHEIGHT/DEPTH" or the name of the sound's format."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One golden case."""

    name: str
    job: Job
    devices: dict[str, PipelineDevice]
    ingest_url: str | None = None
    expected: Expected = field(default_factory=dict)
    """What a CPU device makes of it. Empty: it needs a network, and is run elsewhere."""
    seconds: float = 2.0
    """Length of what is made."""


def video(name: str, encoding: VideoEncoding, audio: AudioRendition = AAC) -> Rendition:
    """Makes an encoded rendition."""
    return Rendition(id=name, video=encoding, audio=audio)


def h264(height: int, **more: object) -> VideoEncoding:
    """Makes an encoding with a keyframe each second."""
    return replace(VideoEncoding(height=height, keyframe_interval=SECOND), **more)


def mp4(path: str, *renditions: str, **more: object) -> FileOutput:
    """Makes an MP4 output."""
    return replace(FileOutput(id=path, path=path, container=Container.MP4, renditions=renditions), **more)


def job(
    source: str | JobInput,
    facts: InputFacts,
    renditions: tuple[Rendition, ...],
    outputs: tuple[JobOutput, ...],
    *,
    software_encode: bool = False,
) -> Job:
    """Makes a job; a plain name is a file of the tests."""
    return Job(
        session="s1",
        attempt=2,
        input=UriInput(uri=f"/media/{source}") if isinstance(source, str) else source,
        facts=facts,
        renditions=renditions,
        outputs=outputs,
        allow_software_encode=software_encode,
    )


LADDER = (
    video("180p", h264(180, bit_rate_bps=400_000, max_bit_rate_bps=500_000)),
    video("144p", h264(144, bit_rate_bps=250_000)),
    video("90p", h264(90)),
)
LADDER_FILES = tuple(mp4(f"{rung.id}.mp4", rung.id) for rung in LADDER)
LADDER_MADE: Expected = {
    "180p.mp4": ("h264 320x180/8", "aac"),
    "144p.mp4": ("h264 256x144/8", "aac"),
    "90p.mp4": ("h264 160x90/8", "aac"),
}
BOTH_CPUS = {"cpu": cpu(), "cpu-old": cpu(OLD_FFMPEG)}
EVERYWHERE = (
    mp4("files/one.mp4", "a"),
    FileOutput(id="all", path="files/every one's.mkv", container=Container.MKV),
    FileOutput(id="ts", path="b and source.ts", container=Container.TS, renditions=("b", "source")),
    HlsOutput(id="hls", path="hls", segment_duration=SECOND, renditions=("a", "b")),
    HlsOutput(
        id="hls-ts", path="hls|ts", segment_duration=SECOND, segment_format=HlsSegmentFormat.TS, renditions=("a",)
    ),
    mp4("/srv/out/final.mp4", "b", overwrite=True),
)
TRIO = (
    video("h264", h264(180, low_latency=True, bit_rate_bps=300_000, max_bit_rate_bps=300_000)),
    video("hevc", h264(180, codec=VideoCodec.HEVC, low_latency=True, quality=30, speed=EncodingSpeed.FASTEST)),
    video("av1", h264(180, codec=VideoCodec.AV1, low_latency=True, bit_rate_bps=200_000, speed=EncodingSpeed.FASTEST)),
)

CASES = (
    Case(
        name="ladder-files",
        job=job("clip.mp4", CLIP, LADDER, LADDER_FILES),
        devices={**BOTH_CPUS, "ada": ada(), "ada-old": ada(OLD_FFMPEG)},
        expected=LADDER_MADE,
    ),
    Case(
        name="ladder-files-software",
        job=job("clip.mp4", CLIP, LADDER, LADDER_FILES, software_encode=True),
        devices={"hopper": hopper()},
    ),
    Case(
        name="ladder-hls",
        job=job("clip.mp4", CLIP, LADDER, (HlsOutput(id="hls", path="hls", segment_duration=SECOND),)),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={"hls": ("180p 2", "144p 2", "90p 2")},
    ),
    Case(
        name="hls-newer-formats",
        job=job(
            "clip.mp4",
            CLIP,
            (
                video("hevc", h264(90, codec=VideoCodec.HEVC), NONE),
                video("av1", h264(180, codec=VideoCodec.AV1), NONE),
            ),
            (HlsOutput(id="hls", path="hls", segment_duration=SECOND), mp4("hevc.mp4", "hevc")),
        ),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={"hls": ("hevc 2", "av1 2"), "hevc.mp4": ("hevc 160x90/8",)},
    ),
    Case(
        name="hls-ts-window",
        job=job(
            UriInput(uri="/media/clip.mp4", native_rate=True, repeat_count=2),
            CLIP,
            LADDER[1:2],
            (
                HlsOutput(
                    id="hls",
                    path="hls",
                    segment_format=HlsSegmentFormat.TS,
                    segment_duration=SECOND,
                    dvr_window=timedelta(seconds=2),
                ),
            ),
        ),
        devices={"cpu": cpu()},
        expected={"hls": ("144p 2",)},
    ),
    Case(
        name="hls-own-and-missing-sound",
        job=job(
            "clip.mp4",
            CLIP,
            (video("a", h264(180), OPUS), video("b", h264(90), NONE), Rendition(id="sound", video=None, audio=AAC)),
            (HlsOutput(id="hls", path="hls", segment_duration=SECOND),),
        ),
        devices=BOTH_CPUS,
        expected={"hls": ("a 2", "b 2")},
    ),
    Case(
        name="hls-sound-only",
        job=job(
            "clip.mp4",
            CLIP,
            (Rendition(id="high", video=None, audio=AAC), Rendition(id="low", video=None, audio=OPUS)),
            (HlsOutput(id="hls", path="hls", segment_duration=SECOND),),
        ),
        devices=BOTH_CPUS,
        expected={"hls": ("high 0", "low 0")},
    ),
    Case(
        name="everywhere",
        job=job(
            "clip.mp4",
            CLIP,
            (
                video("a", h264(180, bit_rate_bps=300_000)),
                video("b", h264(90)),
                Rendition(id="source", video=VideoPassthrough(), audio=COPY),
            ),
            EVERYWHERE,
        ),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={
            "files/one.mp4": ("h264 320x180/8", "aac"),
            "files/every one's.mkv": ("h264 320x180/8", "h264 160x90/8", "h264 320x180/8", "aac", "aac"),
            "b and source.ts": ("h264 160x90/8", "h264 320x180/8", "aac", "aac"),
            "hls": ("a 2", "b 2"),
            "hls|ts": ("a 2",),
            "/srv/out/.gpu-balancer-s1-2/part-5.mp4": ("h264 160x90/8", "aac"),
        },
    ),
    Case(
        name="ten-bit",
        job=job(
            "clip.mp4",
            CLIP,
            (
                video("hevc", h264(90, codec=VideoCodec.HEVC, bit_depth=10, quality=30), NONE),
                video("av1", h264(180, codec=VideoCodec.AV1, bit_depth=10, max_bit_rate_bps=900_000), NONE),
            ),
            (mp4("hevc.mp4", "hevc"), FileOutput(id="m", path="both.mkv", container=Container.MKV)),
        ),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={"hevc.mp4": ("hevc 160x90/10",), "both.mkv": ("hevc 160x90/10", "av1 320x180/10")},
    ),
    Case(
        name="ten-bit-h264",
        job=job("clip.mp4", CLIP, (video("a", h264(90, bit_depth=10)),), (mp4("a.mp4"),)),
        devices=BOTH_CPUS,
        expected={"a.mp4": ("h264 160x90/10", "aac")},
    ),
    Case(
        name="thorough",
        job=job(
            "clip.mp4",
            CLIP,
            (
                video("h264", h264(90, speed=EncodingSpeed.THOROUGH, quality=20)),
                video("hevc", h264(90, codec=VideoCodec.HEVC, speed=EncodingSpeed.BALANCED, bit_rate_bps=200_000)),
                video("av1", h264(180, codec=VideoCodec.AV1, quality=0)),
            ),
            (mp4("all.mp4"),),
        ),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={"all.mp4": ("h264 160x90/8", "hevc 160x90/8", "av1 320x180/8", "aac")},
    ),
    Case(
        name="low-latency",
        job=job("clip.mp4", CLIP, TRIO, tuple(mp4(f"{one.id}.mp4", one.id) for one in TRIO)),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={f"{one.id}.mp4": (f"{one.id} 320x180/8", "aac") for one in TRIO},
    ),
    Case(
        name="rates-and-shapes",
        job=job(
            "oblong.ts",
            OBLONG,
            (
                video("box", VideoEncoding(width=200, height=200, frame_rate=FrameRate(numerator=15, denominator=1))),
                video("stretched", VideoEncoding(width=150, height=200, fit=Fit.STRETCH)),
                video("wide", VideoEncoding(width=256)),
                video("as-is", VideoEncoding()),
            ),
            tuple(mp4(f"{name}.mp4", name) for name in ("box", "stretched", "wide", "as-is")),
        ),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={
            "box.mp4": ("h264 200x112/8", "aac"),
            "stretched.mp4": ("h264 150x200/8", "aac"),
            "wide.mp4": ("h264 256x144/8", "aac"),
            "as-is.mp4": ("h264 512x288/8", "aac"),
        },
    ),
    Case(
        name="turned",
        job=job("turned.mp4", TURNED, (video("a", h264(288)),), (mp4("a.mp4"),)),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={"a.mp4": ("h264 162x288/8", "aac")},
    ),
    Case(
        name="decoded-in-software",
        job=job(
            "deep.mkv",
            DEEP,
            (video("a", h264(90)), video("b", h264(90, codec=VideoCodec.HEVC, bit_depth=10))),
            (mp4("a.mp4", "a"), mp4("b.mp4", "b")),
        ),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={"a.mp4": ("h264 160x90/8",), "b.mp4": ("hevc 160x90/10",)},
    ),
    Case(
        name="passed-through",
        job=job(
            UriInput(uri="/media/clip.mp4", start_offset=SECOND / 2, duration=SECOND),
            CLIP,
            (Rendition(id="source", video=VideoPassthrough(), audio=COPY),),
            (mp4("source.mp4"), HlsOutput(id="hls", path="hls", segment_duration=SECOND)),
        ),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={"source.mp4": ("h264 320x180/8", "aac"), "hls": ("source 0",)},
        seconds=1.0,
    ),
    Case(
        name="sounds",
        job=job(
            "clip.mp4",
            CLIP,
            (
                Rendition(id="stereo", video=None, audio=replace(AAC, channels=2, sample_rate_hz=44_100)),
                Rendition(id="surround", video=None, audio=replace(AAC, channels=6, bit_rate_bps=256_000)),
                Rendition(id="quad", video=None, audio=replace(OPUS, channels=4)),
                Rendition(id="opus", video=None, audio=OPUS),
                Rendition(id="copy", video=None, audio=COPY),
            ),
            (FileOutput(id="all", path="all.mkv", container=Container.MKV), mp4("opus.mp4", "opus")),
        ),
        devices=BOTH_CPUS,
        expected={"all.mkv": ("aac", "aac", "opus", "opus", "aac"), "opus.mp4": ("opus",)},
    ),
    Case(
        name="silent",
        job=job("silent.mp4", replace(SILENT, has_audio=None), LADDER[:2], (mp4("both.mp4"), *LADDER_FILES[:1])),
        devices=BOTH_CPUS,
        expected={"both.mp4": ("h264 320x180/8", "h264 256x144/8"), "180p.mp4": ("h264 320x180/8",)},
    ),
    Case(
        name="looped-for-ever",
        job=job(
            UriInput(uri="/media/clip.mp4", repeat_forever=True, duration=timedelta(seconds=3)),
            CLIP,
            LADDER[1:],
            (mp4("144p.mp4", "144p"), FileOutput(id="k", path="90p.mkv", container=Container.MKV, renditions=("90p",))),
        ),
        devices={**BOTH_CPUS, "ada": ada()},
        expected={"144p.mp4": ("h264 256x144/8", "aac"), "90p.mkv": ("h264 160x90/8", "aac")},
        seconds=3.0,
    ),
    *(
        Case(
            name=f"{scheme}-live",
            job=job(UriInput(uri=url, native_rate=True), LIVE, LADDER[1:2], (mp4("live.mp4"),)),
            devices={"cpu": cpu(), "ada": ada()},
        )
        for scheme, url in {
            "http": "http://user:pa55word@origin.example/live/stream.ts?token=abcdefghij",
            "rtmp": "rtmp://origin.example/live/streamkey",
            "rtsp": "rtsp://camera:secret@camera.example/stream",
            "srt": "srt://origin.example:9000?passphrase=correcthorse",
        }.items()
    ),
    Case(
        name="rtmp-ingest",
        job=job(
            IngestInput(protocol=IngestProtocol.RTMP, publisher_timeout=timedelta(seconds=30)),
            InputFacts(frame_rate=FPS25, video_codec=VideoCodec.H264, has_audio=True),
            LADDER[1:2],
            (
                mp4("live.mp4"),
                HlsOutput(id="hls", path="hls", segment_duration=SECOND, dvr_window=timedelta(minutes=1)),
            ),
        ),
        devices={"cpu": cpu(), "ada": ada()},
        ingest_url="rtmp://127.0.0.1:19350/live/0123456789abcdef",
    ),
    Case(
        name="srt-ingest",
        job=job(
            IngestInput(protocol=IngestProtocol.SRT, duration=timedelta(minutes=5)),
            InputFacts(),
            LADDER[1:2],
            (mp4("live.mp4"),),
        ),
        devices={"cpu": cpu(), "ada": ada()},
        ingest_url="srt://127.0.0.1:19360?mode=caller&passphrase=0123456789abcdef",
    ),
    Case(
        name="pushes",
        job=job(
            UriInput(uri="/media/clip.mp4", native_rate=True),
            CLIP,
            LADDER[:2],
            (
                PushOutput(id="a", url="rtmp://live.example/app/stream'key|x", renditions=("180p",)),
                PushOutput(id="b", url="srt://live.example:9000?passphrase=correcthorse", renditions=("144p",)),
                mp4("kept.mp4", "180p"),
            ),
        ),
        devices={"cpu": cpu(), "ada": ada()},
    ),
)
