"""From typed options to outputs, and to the files to fetch. Every mistake names its option."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import Misuse, spelled
from gpu_balancer.cli.job_options import SegmentChoice
from gpu_balancer.cli.typed_times import typed_duration
from gpu_balancer.client.deliveries import Delivery, file_delivery, hls_delivery, names_folder
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_balancer.cli.job_options import OutputOptions

_PUSH = re.compile(r"(?:(?P<rendition>[A-Za-z0-9_-]{1,40})=)?(?P<url>(?:rtmps?|srt)://.+)")


def typed_delivery(out: OutputOptions, names: Sequence[str]) -> Delivery:
    """Plans what -o and --hls ask for.

    Args:
        out: The options.
        names: Ids of the renditions.

    Raises:
        Misuse: When something typed cannot be meant.
    """
    parts: list[Delivery] = []
    settings = _hls_settings(out)
    if out.output is not None:
        with spelled("-o"):
            folder = names_folder(out.output)
            parts.append(hls_delivery(out.output, settings) if folder else file_delivery(out.output, names))
        if folder and out.hls is not None:
            raise Misuse("Cannot make two HLS presentations. Try a file for -o, or one of -o and --hls.")
    if out.hls is not None:
        parts.append(hls_delivery(out.hls, settings))
    return Delivery(
        outputs=tuple(output for part in parts for output in part.outputs),
        fetches=tuple(fetch for part in parts for fetch in part.fetches),
    )


def _hls_settings(out: OutputOptions) -> media_pb2.HlsOutput:
    settings = media_pb2.HlsOutput(
        segment_duration=typed_duration("--segment-duration", out.segment_duration),
        dvr_window=typed_duration("--dvr-window", out.dvr_window),
    )
    if out.hls_segments is not None:
        fmp4, ts = media_pb2.HLS_SEGMENT_FORMAT_FMP4, media_pb2.HLS_SEGMENT_FORMAT_TS
        settings.segment_format = ts if out.hls_segments is SegmentChoice.TS else fmp4
    return settings


def other_outputs(out: OutputOptions, names: Sequence[str]) -> list[media_pb2.Output]:
    """Makes the outputs that are not fetched: pushes, and files of the daemon's machine.

    Raises:
        Misuse: When something typed cannot be meant.
    """
    return [*_pushes(out, names), *_server_outputs(out, names)]


def _pushes(out: OutputOptions, names: Sequence[str]) -> list[media_pb2.Output]:
    pushes = []
    for text in out.push:
        matched = _PUSH.fullmatch(text)
        if matched is None:
            # The text may hold a stream key: it is not repeated.
            raise Misuse("Cannot use --push: it is no rtmp, rtmps or srt URL. Try --push rtmp://host/app/key.")
        name = matched["rendition"]
        if name is None:
            if len(names) > 1:
                raise Misuse(f"Cannot use --push: it takes one rendition. Try --push {names[0]}=URL.")
            name = names[0]
        elif name not in names:
            raise Misuse(f"Cannot use --push: there is no rendition {name!r}. Try one of {', '.join(names)}.")
        pushes.append(media_pb2.Output(renditions=[name], push=media_pb2.PushOutput(url=matched["url"])))
    return pushes


def _server_outputs(out: OutputOptions, names: Sequence[str]) -> list[media_pb2.Output]:
    outputs: list[media_pb2.Output] = []
    for path in out.server_output:
        if not path.startswith("/"):
            raise Misuse(f"Cannot use --server-output: {path!r} is not absolute. Try /srv/out/{path}.")
        parts = path.removesuffix("/").split("/")[1:]
        if not parts or not {"", ".", ".."}.isdisjoint(parts):
            raise Misuse(
                f"Cannot use --server-output: {path!r} has '.', '..' or '//' in it, or names nothing. "
                "Try the whole path, such as /srv/out/show.mp4, or /srv/out/show/ for HLS."
            )
        if names_folder(path):
            hls = _hls_settings(out)
            # The slash only tells that a folder is meant.
            hls.path = path.removesuffix("/")
            outputs.append(media_pb2.Output(hls=hls))
            continue
        with spelled("--server-output"):
            delivery = file_delivery(path, names)
        for name, fetch in zip(names, delivery.fetches, strict=True):
            file = media_pb2.FileOutput(path=str(fetch.target), overwrite=out.overwrite)
            outputs.append(media_pb2.Output(renditions=[name], file=file))
    return outputs
