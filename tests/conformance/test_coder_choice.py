"""The balancer counts a session as the agent will run it, though they never import each other."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.pipelines.capability import Capability, FfmpegBuild, PipelineDevice
from agents.pipelines.coders import Coders, choose_coders
from agents.pipelines.job import (
    Container,
    Direction,
    FileOutput,
    InputFacts,
    Job,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
)
from agents.pipelines.pipeline_error import PipelineError
from balancer.domain.capacity import capacity_of
from balancer.domain.decision import Refusal
from balancer.domain.demand import Demand, demand_on
from balancer.domain.device import Capability as SeenCapability
from balancer.domain.device import DeviceIdentity, DeviceKind, DeviceState, DeviceView, Dimension
from balancer.domain.device import Direction as SeenDirection
from balancer.domain.ids import DeviceId
from balancer.domain.workload import CostFactors, DecodeTask, EncodeTask, EncodingSpeed, Workload
from balancer.domain.workload import VideoCodec as AskedCodec
from gpu_balancer.pictures.sizes import PictureSize, fitted_size

PATHS = ("/opt/new", "/opt/old")
OUTCOMES: tuple[tuple[str, ...], ...] = (PATHS, PATHS, PATHS, PATHS[:1], PATHS[1:], ())
"""With which ffmpegs a thing works; mostly with both, else hardly any job could be done at all."""
CODECS = (VideoCodec.H264, VideoCodec.AV1)
CPU_ENCODERS = {VideoCodec.H264: "libx264", VideoCodec.AV1: "libsvtav1"}
RATE = 30

trials = [
    (codec, direction, hardware)
    for codec in (*CODECS, VideoCodec.HEVC)
    for direction in Direction
    for hardware in (True, False)
    if codec in CODECS or direction is Direction.DECODE
]


@st.composite
def capabilities(draw: st.DrawFn) -> tuple[Capability, ...]:
    """As a probe tells them: what works once for each ffmpeg in which it does, what fails once."""
    told: list[Capability] = []
    for codec, direction, hardware in trials:
        works = draw(st.sampled_from(OUTCOMES))
        told += [
            Capability(
                codec=codec,
                direction=direction,
                bit_depth=8,
                implementation=f"{codec}_nv" if hardware else CPU_ENCODERS.get(codec, str(codec)),
                works=bool(works),
                hardware=hardware,
                ffmpeg=path,
            )
            for path in (works or PATHS[:1])
        ]
    return tuple(draw(st.permutations(told)))


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Inputs and renditions around the limits of the hardware."""
    facts = InputFacts(
        width=draw(st.sampled_from([1280, 4096, 4112, 32])),
        height=draw(st.sampled_from([720, 4096])),
        video_codec=draw(st.sampled_from([VideoCodec.H264, VideoCodec.HEVC, VideoCodec.OTHER])),
        bit_depth=8,
        chroma=draw(st.sampled_from([None, "4:2:0", "4:2:0", "4:2:2"])),
        rotation_degrees=draw(st.sampled_from([None, 0, 0, 90])),
    )
    sizes = st.sampled_from([(None, None), (None, 720), (None, 144), (160, None), (192, 128), (None, 48)])
    encodings = [
        VideoEncoding(codec=codec, width=width, height=height)
        for codec, (width, height) in draw(st.lists(st.tuples(st.sampled_from(CODECS), sizes), min_size=1, max_size=2))
    ]
    return Job(
        session="s",
        attempt=1,
        input=UriInput(uri="/media/a.mp4"),
        facts=facts,
        renditions=tuple(Rendition(id=f"r{number}", video=encoding) for number, encoding in enumerate(encodings)),
        outputs=(FileOutput(id="o", path="o.mkv", container=Container.MKV),),
        allow_software_encode=draw(st.booleans()),
    )


def workload(job: Job) -> Workload:
    """Describes a job as the balancer does."""
    facts = job.facts
    assert facts.width is not None
    assert facts.height is not None
    assert facts.video_codec is not None
    encodes = []
    for rendition in job.renditions:
        assert isinstance(rendition.video, VideoEncoding)
        size = fitted_size(
            PictureSize(facts.width, facts.height), width=rendition.video.width, height=rendition.video.height
        )
        encodes.append(
            EncodeTask(
                codec=AskedCodec(rendition.video.codec.value),
                width=size.width,
                height=size.height,
                bit_depth=8,
                speed=EncodingSpeed.FAST,
                pixels_per_second=size.width * size.height * RATE,
            )
        )
    return Workload(
        decode=DecodeTask(
            codec=AskedCodec(facts.video_codec.value),
            width=facts.width,
            height=facts.height,
            bit_depth=8,
            chroma=facts.chroma,
            pixels_per_second=facts.width * facts.height * RATE,
            rotated=bool(facts.rotation_degrees),
        ),
        scale_pixels_per_second=0,
        encodes=tuple(encodes),
        real_time=False,
        allow_software_encode=job.allow_software_encode,
    )


def view(kind: DeviceKind, told: tuple[Capability, ...]) -> DeviceView:
    """Makes the device as the balancer sees it."""
    identity = DeviceIdentity(id=DeviceId("d"), kind=kind, model="d", cores=(0, 1))
    seen = tuple(
        SeenCapability(
            codec=AskedCodec(one.codec.value),
            direction=SeenDirection(one.direction.value),
            bit_depth=one.bit_depth,
            works=one.works,
            hardware=one.hardware,
            implementation=one.implementation,
            ffmpeg=one.ffmpeg,
        )
        for one in told
    )
    return DeviceView(
        identity=identity,
        state=DeviceState.READY,
        state_message="",
        weight=100,
        capabilities=seen,
        capacity=capacity_of(identity, seen, None),
        ffmpeg_paths=PATHS,
    )


def chosen(job: Job, device: PipelineDevice) -> Coders | None:
    """Gives the agent's choice, None when it refuses."""
    try:
        return choose_coders(job, device)
    except PipelineError:
        return None


@settings(max_examples=200)
@given(jobs(), capabilities(), st.sampled_from([DeviceKind.NVIDIA, DeviceKind.NVIDIA, DeviceKind.CPU]))
def test_what_is_booked_is_what_runs(job: Job, told: tuple[Capability, ...], kind: DeviceKind) -> None:
    if kind is DeviceKind.CPU:
        told = tuple(one for one in told if not one.hardware)
    device = PipelineDevice(
        kind="nvidia" if kind is DeviceKind.NVIDIA else "cpu",
        id="d",
        core_count=2,
        capabilities=told,
        ffmpeg_builds=tuple(FfmpegBuild(path=path, version="9.0", candidate=path) for path in PATHS),
    )
    booked = demand_on(workload(job), view(kind, told), CostFactors())
    coders = chosen(job, device)
    if coders is None:
        assert isinstance(booked, Refusal), booked
        return
    assert isinstance(booked, Demand), booked
    hardware = sum(encoder.hardware for encoder in coders.encoders.values())
    assert booked.device_amounts.get(Dimension.ENCODER_SESSIONS, 0) == hardware
    assert (Dimension.DECODE in booked.device_amounts) == coders.hardware_decode
    if kind is DeviceKind.NVIDIA:
        left = Fraction(booked.host_amounts.get(Dimension.CORES, 0))
        assert bool(left) == (hardware < len(coders.encoders) or not coders.hardware_decode)
