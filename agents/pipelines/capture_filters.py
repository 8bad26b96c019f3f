"""The filter graph of a take: the display's picture, made YUV once, marked, and fitted for each encoder.

A display is RGB, and every step that makes YUV of it has to be told how: swscale takes BT.601 unless told otherwise,
while players take BT.709 for what is as large as a screen. So it is converted to BT.709 of limited range and says so.
NVENC takes RGB as it is and makes YUV of it itself, by BT.601 whatever it is told (ffmpeg writes that into the stream);
then the container must say the same. That saves the cores the conversion, and is done whenever nothing else has to be
done to the picture: no watermark, no other size.

A picture has the time at which it was taken, and the encoder wants one for each slot of the frame rate. ffmpeg's own
way from the one to the other (`-fps_mode cfr`) makes up for a late picture at once, but leaves out one that is too many
only when it is two slots late: after a moment without the processor all pictures come up to 70 ms behind their sound,
for good. So pictures are put into slots here, each into the one after that of the picture before, or the nearest (see
`capture_slots`). The slots have the grabber's own pace, and what comes of that is stretched a little (see
`frame_stretch`).

Whether the picture stands still is watched on a way of its own that drops most pictures first. It ends inside the
graph: an output that gets a picture now and then would have ffmpeg hold back the sound until the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.pipelines.capture_input import frame_stretch, picture_input, rate_text
from agents.pipelines.capture_slots import CATCHING_UP, EARLIEST, LATEST, LATEST_OF_HANG
from agents.pipelines.job import Fit
from agents.pipelines.recording import Corner
from agents.pipelines.video_filters import branch_chain
from gpu_balancer.pictures.sizes import PictureSize, fitted_size

if TYPE_CHECKING:
    from agents.pipelines.job import CaptureInput, FrameRate, VideoEncoding
    from agents.pipelines.recording import Watermark
    from agents.pipelines.video_filters import Branch

_TAGGED = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace="
# Of one size to the same, `area` takes the mean of the pixels that share a sample of colour: what is wanted, for less.
_TO_YUV = f"scale=out_color_matrix=bt709:out_range=tv:flags=area,format=yuv420p,{_TAGGED}bt709"
_UPLOADED = "format=nv12,hwupload_cuda"
_AS_NVENC_MAKES_IT = f"format=bgr0,{_TAGGED}bt470bg"
LATER_OF_TWO_LEFT_OUT = ("-frame_drop_threshold", "0.5")
"""General arguments beside the graph: of two pictures in one slot the later one is left out. ffmpeg has them follow one
another otherwise."""
_IDLE_LOOKS_PER_SECOND = 2
_CORNERS = {
    Corner.TOP_LEFT: "x={margin}:y={margin}",
    Corner.TOP_RIGHT: "x=W-w-{margin}:y={margin}",
    Corner.BOTTOM_LEFT: "x={margin}:y=H-h-{margin}",
    Corner.BOTTOM_RIGHT: "x=W-w-{margin}:y=H-h-{margin}",
}


def takes_rgb(branches: tuple[Branch, ...], capture: CaptureInput, watermark: Watermark | None) -> bool:
    """Tells whether every encoder gets the display's RGB as it is."""
    return watermark is None and all(
        branch.encoder.hardware and branch.encoding.bit_depth == 8 and not _is_scaled(branch.encoding, capture)
        for branch in branches
    )


def capture_graph(
    branches: tuple[Branch, ...],
    capture: CaptureInput,
    *,
    watermark: Watermark | None = None,
    idle_events: str | None = None,
) -> str:
    """Writes the graph from the display to every encoder.

    Args:
        branches: The encoders; at least one.
        capture: What is captured.
        watermark: Laid over the picture before it is fitted. It is the input after the display. None: there is none.
        idle_events: Absolute path of the file that is told when the picture stands still. None: nobody asks.

    Returns:
        An argument of `-filter_complex`.
    """
    source = f"[{picture_input(capture)}]{in_slots(capture.frame_rate)},"
    chains = _encoded(branches, capture, watermark)
    if idle_events is None:
        return ";".join([source + chains[0], *chains[1:]])
    return ";".join([f"{source}split[shown][watched]", f"[shown]{chains[0]}", *chains[1:], _watched(idle_events)])


def in_slots(rate: FrameRate) -> str:
    """Writes the filter that puts each picture into its slot, as `capture_slots.slots_from_turn` tells it.

    Two may come into one slot: with `LATER_OF_TWO_LEFT_OUT` the encoder leaves out the later one.

    Args:
        rate: Slots in a second.
    """
    stretch = f"{float(frame_stretch(rate)):.9f}"
    steps = (
        f"st(0,{rate.denominator}/{rate.numerator}/TB)",  # a frame's length
        f"st(1,PTS/ld(0)*{stretch})",  # when it was taken, in slots
        "st(2,if(N,round(PREV_OUTPTS/ld(0))+1,round(ld(1))))",  # the slot that is its turn
        "st(3,ld(1)-ld(2))",  # how late it is for that
        f"st(4,if(N,PREV_INPTS/ld(0)*{stretch}-PREV_OUTPTS/ld(0)))",  # and how late the one before was
        f"st(5,lte(ld(4),{LATEST})+lt(ld(3),ld(4)-{CATCHING_UP}))",  # whether it may be very late
        f"st(6,between(ld(3),{EARLIEST},if(ld(5),{LATEST_OF_HANG},{LATEST})))",
        # Rounded up, so that of a rate half as high each slot begins with a picture's.
        "ceil(ld(0)*if(ld(6),ld(2),max(ld(2)-1,round(ld(1)))))",
    )
    return f"setpts='{';'.join(steps)}'"


def filter_text(text: str) -> str:
    """Gives a text as the value of a filter's option: escaped as a value, and then as part of a graph."""
    value = "".join(f"\\{character}" if character in "\\':" else character for character in text)
    return "".join(f"\\{character}" if character in "\\'[],;" else character for character in value)


def _encoded(branches: tuple[Branch, ...], capture: CaptureInput, watermark: Watermark | None) -> list[str]:
    """Gives the chains from the display to the encoders; the first one lacks the pad that it begins with."""
    on_device = any(branch.encoder.hardware for branch in branches)
    as_it_is = takes_rgb(branches, capture, watermark)
    rates = {branch.encoding.frame_rate for branch in branches}
    common = rates.pop() if len(rates) == 1 else None
    # Pictures that every rendition leaves out need no conversion.
    head = [f"fps={rate_text(common)}"] if common else []
    head.append(_AS_NVENC_MAKES_IT if as_it_is else _TO_YUV)
    marking: list[str] = []
    if watermark is not None:
        marking = [",".join(head) + "[picture]", _mark(watermark, capture)]
        head = [f"[picture][mark]{_overlay(watermark)}"]
    head += [_UPLOADED] if on_device and not as_it_is else []
    ways = [
        _fitted(
            branch,
            as_it_is=as_it_is,
            on_device=on_device,
            unlike=branch.encoding.bit_depth > 8 or _is_scaled(branch.encoding, capture),
            rated=common is None,
        )
        for branch in branches
    ]
    if len(branches) == 1:
        return [*marking, ",".join([*head, *filter(None, ways)]) + f"[{branches[0].label}]"]
    pads = [f"[s{index}]" for index in range(len(branches))]
    parted = ",".join([*head, f"split={len(branches)}"]) + "".join(pads)
    tails = [f"{pad}{way or 'null'}[{branch.label}]" for pad, way, branch in zip(pads, ways, branches, strict=True)]
    return [*marking, parted, *tails]


def _fitted(branch: Branch, *, as_it_is: bool, on_device: bool, unlike: bool, rated: bool) -> str:
    """Gives the filters of one encoder's way; none where nothing has to be done."""
    if not as_it_is and (on_device or unlike):
        return branch_chain(branch, on_device=on_device, rated=rated)
    rate = branch.encoding.frame_rate
    # Of a picture that is as it is wanted, even a scaler that changes nothing costs a copy.
    return f"fps={rate_text(rate)}" if rate and rated else ""


def _is_scaled(encoding: VideoEncoding, capture: CaptureInput) -> bool:
    whole = PictureSize(capture.width, capture.height)
    stretched = encoding.fit is Fit.STRETCH
    return fitted_size(whole, width=encoding.width, height=encoding.height, stretch=stretched) != whole


def _mark(watermark: Watermark, capture: CaptureInput) -> str:
    """Gives the chain from the watermark's picture to the pad "mark".

    It is read once: `overlay` lays the last picture that came over all that follow, so nothing has to be looped.
    """
    index = 1 if capture.sound_source is None else 2
    faded = f",colorchannelmixer=aa={watermark.opacity:g}" if watermark.opacity < 1 else ""
    return f"[{index}:V:0]format=rgba{faded},scale=out_color_matrix=bt709:out_range=tv,format=yuva420p[mark]"


def _overlay(watermark: Watermark) -> str:
    return f"overlay={_CORNERS[watermark.corner].format(margin=watermark.margin)}:format=yuv420"


def _watched(path: str) -> str:
    # At full size: a page on which nothing but a clock ticks is not idle. `scale` is said although ffmpeg would put it
    # in: it would do so in front of `fps`, for every picture.
    looked_at = f"fps={_IDLE_LOOKS_PER_SECOND},scale,format=gray,freezedetect=n=0:d=1"
    return f"[watched]{looked_at},metadata=mode=print:file={filter_text(path)}:direct=1,nullsink"
