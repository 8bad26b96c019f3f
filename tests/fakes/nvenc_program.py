"""The program that `nvenc_ffmpeg.install` writes: the real ffmpeg, with what is asked of a card done in software.

It is strict where a real card is: a GPU must be chosen by UUID in CUDA_VISIBLE_DEVICES, a filter or encoder that works
on the processor may not be given pictures in CUDA memory, nor the other way round, and each card may lack encoders and
decoders, and may be broken altogether.

It is started hundreds of times: what it imports is little, and nothing of the tests or the product.
"""

from __future__ import annotations

import json
import os
import re
import sys

SOFTWARE = {"h264_nvenc": "libx264", "hevc_nvenc": "libx265", "av1_nvenc": "libsvtav1"}
_DEVICE_OPTIONS = {"-init_hw_device", "-filter_hw_device", "-hwaccel_device", "-extra_hw_frames", "-hwaccel_flags"}
# Options of NVENC that the software encoders do not have, or mean otherwise.
_NVENC_OPTIONS = {
    "-tune", "-rc", "-rc-lookahead", "-spatial-aq", "-spatial_aq", "-temporal-aq", "-temporal_aq", "-aq-strength",
    "-b_ref_mode", "-multipass", "-gpu", "-surfaces", "-delay", "-zerolatency", "-no-scenecut", "-strict_gop",
    "-nonref_p", "-b_adapt", "-2pass", "-weighted_pred", "-split_encode_mode", "-highbitdepth", "-tier", "-level",
    "-profile", "-cbr", "-forced-idr", "-lookahead_level", "-tf_level", "-extra_sei", "-a53cc", "-dpb_size",
}  # fmt: skip
_PASS_ANYWHERE = {
    "split", "fps", "setpts", "settb", "null", "trim", "setsar", "setdar", "setparams", "select", "copy", "realtime",
    "setfield",
}  # fmt: skip
_NO_VALUE = {
    "-y", "-n", "-hide_banner", "-nostdin", "-nostats", "-stats", "-xerror", "-an", "-vn", "-sn", "-dn", "-re",
    "-shortest", "-copyts", "-start_at_zero", "-autorotate", "-noautorotate", "-accurate_seek", "-noaccurate_seek",
    "-ignore_unknown", "-version", "-benchmark", "-autoscale", "-noautoscale", "-report", "-bitexact",
}  # fmt: skip


class RefusedError(Exception):
    """What a real card would refuse, in ffmpeg's words."""


class _Rewriting:
    """Goes through ffmpeg's arguments once: options of an input up to its `-i`, options of an output up to its URL."""

    def __init__(self, real: str, arguments: list[str], lacking: list[str]) -> None:
        self._real = real
        self._arguments = arguments
        self._lacking = set(lacking)
        self._ten_bit = any("p010" in argument or "10le" in argument for argument in arguments)
        self._input_in_cuda: list[bool] = []
        self._label_in_cuda: dict[str, bool] = {}

    def result(self) -> list[str]:
        rest = list(self._arguments)
        written: list[str] = []
        pending: list[tuple[str, str | None]] = []
        while rest:
            argument = rest.pop(0)
            if not argument.startswith("-") or argument == "-":
                written += [*self._output(pending), argument]
                pending = []
            elif argument == "-i":
                url = rest.pop(0)
                written += [*self._input(pending, url), "-i", url]
                pending = []
            elif argument in {"-filter_complex", "-lavfi"}:
                written += [argument, self._graph(rest.pop(0))]
            elif argument in _NO_VALUE:
                pending.append((argument, None))
            else:
                pending.append((argument, rest.pop(0) if rest else None))
        return written + _flat(pending)

    def _input(self, options: list[tuple[str, str | None]], url: str) -> list[str]:
        values = dict(options)
        uses_cuda = values.get("-hwaccel") in {"cuda", "nvdec"}
        self._input_in_cuda.append(uses_cuda and values.get("-hwaccel_output_format") == "cuda")
        if not uses_cuda:
            return _flat([option for option in options if option[0] not in _DEVICE_OPTIONS])
        if any("_nvdec" in what for what in self._lacking) and "://" not in url:
            self._require(f"{self._codec_of(url)}_nvdec", "Impossible to convert between the formats: no hwaccel")
        dropped = _DEVICE_OPTIONS | {"-hwaccel", "-hwaccel_output_format", "-c:v", "-codec:v", "-vcodec"}
        return _flat([option for option in options if option[0] not in dropped])

    def _codec_of(self, path: str) -> str:
        """Asks the real ffmpeg for the format of a file's video, as we name it."""
        import subprocess  # for few: it is half of a start

        run = subprocess.run([self._real, "-hide_banner", "-i", path], capture_output=True, text=True, check=False)
        video = re.search(r"Stream #0:\d+.*: Video: (\w+)", run.stderr)
        return video[1].removesuffix("video") if video else ""

    def _output(self, options: list[tuple[str, str | None]]) -> list[str]:
        encoders = [(name, value) for name, value in options if name.startswith(("-c:v", "-codec:v", "-vcodec"))]
        self._check_memory(options, encoders)
        written: list[str] = []
        for name, value in options:
            base, _, specifier = name.partition(":")
            encoder = self._encoder_of(specifier, encoders)
            if (name, value) in encoders and value in SOFTWARE:
                self._require(value, "OpenEncodeSessionEx failed: unsupported device (2): (no details)")
                written += [name, SOFTWARE[value], *_software_extras(value, specifier)]
            elif (base == "-vf" or (base == "-filter" and not specifier.startswith("a"))) and value is not None:
                written += [name, self._chains(value)]
            elif name in _DEVICE_OPTIONS or (base == "-pix_fmt" and value == "cuda"):
                continue
            elif encoder in SOFTWARE:
                written += _encoder_option(base, name, value, encoder)
            else:
                written += _flat([(name, value)])
        return written

    def _encoder_of(self, specifier: str, encoders: list[tuple[str, str | None]]) -> str:
        """Tells the encoder that an option of an output is for; "" when it is for none of ours."""
        stream = specifier.removeprefix("v").removeprefix(":")
        if specifier and not specifier.startswith("v"):
            return ""
        for name, value in encoders:
            for_stream = name.partition(":")[2].removeprefix("v").removeprefix(":")
            if value in SOFTWARE and (not for_stream or not stream or for_stream == stream):
                return value
        return ""

    def _check_memory(self, options: list[tuple[str, str | None]], encoders: list[tuple[str, str | None]]) -> None:
        """Refuses an encoder on the processor that is given pictures in CUDA memory."""
        maps = [value or "" for name, value in options if name == "-map"]
        videos = [value for value in maps if value.startswith("[") or re.fullmatch(r"\d+:[vV](:\d+)?\??", value)]
        by_stream = {
            name.partition(":")[2].removeprefix("v").removeprefix(":"): value or "" for name, value in encoders
        }
        filters = next((value for name, value in options if name in {"-vf", "-filter:v"}), None)
        number = 0
        for video in videos or ["0:v"] * bool(encoders and self._input_in_cuda):
            if video.startswith("["):
                label = video.strip("[]")
                if label not in self._label_in_cuda:
                    continue  # the sound of a graph
                in_cuda = self._label_in_cuda[label]
            else:
                in_cuda = self._input_in_cuda[int(video.split(":")[0])]
                if filters is not None:
                    in_cuda = self._chain(filters, in_cuda)[1]
            encoder = by_stream.get(str(number), by_stream.get("", "libx264"))
            number += 1
            # wrapped_avframe hands pictures on wherever they are.
            if in_cuda and encoder not in SOFTWARE and encoder not in {"copy", "wrapped_avframe"}:
                raise RefusedError("Impossible to convert between the formats supported by the filter and the encoder")

    def _graph(self, graph: str) -> str:
        return ";".join(self._labelled_chain(chain) for chain in _split(graph, ";"))

    def _labelled_chain(self, chain: str) -> str:
        match = re.fullmatch(r"\s*((?:\[[^\]]*\])*)(.*?)((?:\[[^\]]*\])*)\s*", chain, re.DOTALL)
        assert match is not None
        sources = re.findall(r"\[([^\]]*)\]", match[1])
        if any(re.fullmatch(r"\d+:a(:\d+)?", source) for source in sources):
            return chain
        states = [self._source_in_cuda(source) for source in sources]
        text, in_cuda = self._chain(match[2], any(states))
        for label in re.findall(r"\[([^\]]*)\]", match[3]):
            self._label_in_cuda[label] = in_cuda
        return match[1] + text + match[3]

    def _source_in_cuda(self, source: str) -> bool:
        if source in self._label_in_cuda:
            return self._label_in_cuda[source]
        number = source.split(":")[0]
        return number.isdigit() and self._input_in_cuda[int(number)]

    def _chains(self, chain: str) -> str:
        return self._chain(chain, self._input_in_cuda[0])[0]

    def _chain(self, chain: str, in_cuda: bool) -> tuple[str, bool]:
        written = []
        for step in _split(chain, ","):
            name, _, options = step.strip().partition("=")
            base = name.split("@")[0]
            if base == "hwdownload" or (base.endswith("_cuda") and base != "hwupload_cuda"):
                if not in_cuda:
                    raise RefusedError(f"The filter {base} needs pictures in CUDA memory: Invalid argument")
                in_cuda = base != "hwdownload"
                written.append(_scale(options) if base == "scale_cuda" else base.removesuffix("_cuda"))
                if base == "hwdownload":
                    written[-1] = "null"
            elif base in {"hwupload_cuda", "hwupload"}:
                if in_cuda:
                    raise RefusedError("hwupload_cuda: pictures are in CUDA memory already: Invalid argument")
                in_cuda = True
                written.append("null")
            elif in_cuda and base not in _PASS_ANYWHERE:
                raise RefusedError(f"Impossible to convert between the formats supported by the filter and {base}")
            else:
                written.append(step)
        return ",".join(written), in_cuda

    def _require(self, what: str, message: str) -> None:
        if what in self._lacking or (self._ten_bit and f"{what}:10" in self._lacking):
            raise RefusedError(message)


def _scale(options: str) -> str:
    """Turns scale_cuda's options into scale's."""
    kept, after = [], ""
    for number, option in enumerate(_split(options, ":") if options else []):
        name, equals, value = option.partition("=")
        if not equals:
            kept.append(f"{'wh'[number]}={option}")
        elif name == "format":
            after = f",format={value}"
        elif name == "interp_algo":
            kept.append(f"flags={value}")
        elif name not in {"passthrough", "param", "use_filters"}:
            kept.append(option)
    return f"scale={':'.join(kept)}{after}" if kept else f"null{after}"


def _encoder_option(base: str, name: str, value: str | None, encoder: str) -> list[str]:
    """Turns an option of an NVENC encoder into one of the software encoder that stands in for it."""
    specifier = name.partition(":")[2]
    suffix = f":{specifier}" if specifier else ""
    if base in {"-preset", *_NVENC_OPTIONS}:
        return []
    if base in {"-cq", "-qp"}:
        return [f"-crf{suffix}", value or ""]
    if encoder == "av1_nvenc" and base in {"-maxrate", "-bufsize", "-bf"}:
        return []  # SVT-AV1 refuses a peak beside an average
    return _flat([(name, value)])


def _software_extras(encoder: str, specifier: str) -> list[str]:
    stream = specifier or "v"
    preset = ["12"] if encoder == "av1_nvenc" else ["ultrafast"]
    return [f"-preset:{stream}", *preset]


def _flat(options: list[tuple[str, str | None]]) -> list[str]:
    return [text for name, value in options for text in ((name,) if value is None else (name, value))]


def _split(text: str, separator: str) -> list[str]:
    """Splits at a separator that is neither quoted nor escaped."""
    parts, current, quoted, escaped = [], "", False, False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "'":
            quoted = not quoted
        elif character == separator and not quoted:
            parts.append(current)
            current = ""
            continue
        current += character
    return [*parts, current]


def uses_cuda(arguments: list[str]) -> bool:
    """Tells whether the arguments need a card at all."""
    return any(
        argument in {"-init_hw_device", "-filter_hw_device", "-hwaccel", "-hwaccel_output_format"}
        or re.fullmatch(r"\w+_(nvenc|cuvid)", argument)
        or (before.startswith(("-vf", "-filter", "-lavfi")) and re.search(r"_cuda|hwupload|hwdownload", argument))
        for before, argument in zip(["", *arguments], arguments, strict=False)
    )


def main(real: str, settings_path: str, *given: str) -> None:
    """Becomes the real ffmpeg with other arguments, or fails as a card does."""
    arguments = list(given)
    if uses_cuda(arguments):
        uuid = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        with open(settings_path) as file:  # noqa: PTH123 - pathlib would cost every start
            settings = json.load(file)
        lacking = settings["lacking"].get(uuid, [])
        try:
            if not uuid.startswith("GPU-"):
                raise RefusedError("cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected")
            if uuid in settings["broken"]:
                raise RefusedError(settings["broken"][uuid])
            arguments = _Rewriting(real, arguments, lacking).result()
        except RefusedError as refused:
            print(f"[fake_nvenc @ 0x55] [error] {refused}", file=sys.stderr)
            sys.exit(218)
    os.execv(real, [real, *arguments])
