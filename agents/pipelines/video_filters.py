"""The filter graph: the decoded picture, split, and fitted for each encoder.

Sizes are expressions that ffmpeg evaluates on the real picture, not figures computed from facts: so a picture with
oblong pixels comes out square and in its true shape, and facts that were wrong spoil nothing. (`force_divisible_by`
and `force_original_aspect_ratio` know nothing of oblong pixels before ffmpeg 7.1, hence not used.)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from agents.pipelines.job import Fit

if TYPE_CHECKING:
    from agents.pipelines.coders import VideoEncoder
    from agents.pipelines.job import InputFacts, VideoEncoding


class FrameSource(Enum):
    """Where decoded frames are."""

    MEMORY = auto()
    """In the host's memory, and they stay there."""
    UPLOADED = auto()
    """In the host's memory; brought to the device once, before they are split."""
    DEVICE = auto()
    """In the device's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One encoder's way through the graph."""

    label: str
    """Name of the pad that the encoder maps."""
    encoding: VideoEncoding
    encoder: VideoEncoder
    scaler_blackens: bool = False
    """Of the ffmpeg, as with `FfmpegBuild`."""


def filter_graph(branches: tuple[Branch, ...], *, source: FrameSource, facts: InputFacts) -> str:
    """Writes the graph from the input's first video stream to every encoder.

    Args:
        branches: At least one.
        source: Where decoded frames are.
        facts: What is known of the input. An unknown bit depth is taken for 8, unknown sides for even ones.

    Returns:
        An argument of `-filter_complex`.
    """
    upload = ""
    if source is FrameSource.UPLOADED:
        deep = (facts.bit_depth or 8) > 8 and any(branch.encoding.bit_depth > 8 for branch in branches)
        # Filters in device memory spoil pictures of odd sides.
        odd = (facts.width or 0) % 2 or (facts.height or 0) % 2
        even = f"scale=w='{_even('iw')}':h='{_even('ih')}'," if odd else ""
        upload = f"{even}format={'p010le' if deep else 'nv12'},hwupload_cuda"
    chains = [branch_chain(branch, on_device=source is not FrameSource.MEMORY) for branch in branches]
    if len(branches) == 1:
        whole = ",".join(filter(None, (upload, chains[0])))
        return f"[0:V:0]{whole}[{branches[0].label}]"
    pads = [f"[s{index}]" for index in range(len(branches))]
    head = ",".join(filter(None, (upload, f"split={len(branches)}")))
    tails = [f"{pad}{chain}[{branch.label}]" for pad, chain, branch in zip(pads, chains, branches, strict=True)]
    return ";".join([f"[0:V:0]{head}{''.join(pads)}", *tails])


def branch_chain(branch: Branch, *, on_device: bool, rated: bool = True) -> str:
    """Writes the filters of one encoder's way.

    Args:
        branch: The way.
        on_device: Whether frames are in the device's memory.
        rated: Whether the frame rate is to be seen to. False: it was, before the ways parted.

    Returns:
        Filters in a row.
    """
    width, height = _size(branch.encoding)
    deep = branch.encoding.bit_depth > 8
    rate = branch.encoding.frame_rate
    # Frames that the rate drops need no scaling, so the rate comes first.
    filters = [f"fps={rate.numerator}/{rate.denominator}"] if rate and rated else []
    planar = "yuv420p10le" if deep else "yuv420p"
    if not on_device:
        return ",".join([*filters, f"scale=w='{width}':h='{height}'", "setsar=1", f"format={planar}"])
    packed = "p010le" if deep else "nv12"
    filters += [*_scalers_on_device(branch, packed=packed), "setsar=1"]
    if not branch.encoder.hardware:
        filters += ["hwdownload", f"format={packed}", f"format={planar}"]
    return ",".join(filters)


def _scalers_on_device(branch: Branch, *, packed: str) -> list[str]:
    width, height = _size(branch.encoding)
    # Without a copy an encoder would hold the decoder's own few surfaces, and decoding would starve.
    scaler = f"scale_cuda=w='{width}':h='{height}':format={packed}:passthrough=0"
    if not branch.scaler_blackens:
        return [scaler]
    if branch.encoding.width is None and branch.encoding.height is None:
        # Only oblong pixels are made square. Without its filters it is coarser, which does not show at such ratios.
        return [f"{scaler}:use_filters=0"]
    # A side that stays as it is while the other one shrinks is doubled first, so that both shrink; else the first
    # scaler hands frames on as they are. Its filters are what makes pictures of a third of the size or less good.
    doubled = (
        f"scale_cuda=w='iw*(1+eq({width},iw)*lt({height},ih))'",
        f"h='ih*(1+lt({width},iw)*eq({height},ih))'",
    )
    return [":".join(doubled), scaler]


def _size(encoding: VideoEncoding) -> tuple[str, str]:
    """Writes width and height as ffmpeg expressions: even, at least 2; `dar` is the shape of the picture as shown."""
    width, height = encoding.width, encoding.height
    if width is not None and height is not None:
        if encoding.fit is Fit.STRETCH:
            return str(width), str(height)
        return _even(f"min({width},{height}*dar)"), _even(f"min({height},{width}/dar)")
    if width is not None:
        return str(width), _even(f"{width}/dar")
    if height is not None:
        return _even(f"{height}*dar"), str(height)
    return _even("iw*sar"), _even("ih")


def _even(expression: str) -> str:
    return f"max(2,2*round({expression}/2))"
