"""Which engines and codecs a GPU model has, by the name under which NVML reports it.

Names are compared whole. A name that merely resembles a row is an unknown model: "L40S" is not "L40", a laptop's
"RTX 4090 Laptop GPU" carries another chip than the card, and a MIG slice or vGPU profile owns but a share of the
engines. A wrong row would promise engines that do not exist; an unknown model only gets cautious defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from gpu_balancer.hardware.tables import read_table

_BRAND = re.compile(r"^(?:nvidia )?(?:tesla )?(?=.)")
# "-SXM4-80GB", "-PCIE-16GB", " 80GB PCIe", " 80GB HBM3", " PCIe", " NVL", " 480GB", " 144G HBM3e", " 12GB"
_FORM_FACTOR = re.compile(r"(?:[ -](?:sxm\d?|pcie|fhhl|nvl))?(?:[ -]\d+gb?)?(?: (?:pcie|hbm\d\w?))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """What is published about a model, or about several that are alike."""

    model: str
    """Name of the row, which a person reads: "RTX 3050-3090Ti" for instance."""
    architecture: str
    """Without the chip: "Ada" for instance."""
    chip: str | None
    """Chip or chips: "AD104" for instance. None: not said."""
    encoder_engines: int
    decoder_engines: int
    h264_encode: bool
    hevc_encode: bool
    av1_encode: bool
    hevc_10bit_encode: bool
    chroma_422_encode: bool
    av1_decode: bool
    geforce_session_cap: bool
    """Whether the driver caps concurrent encoder sessions, over all such cards of the system together."""
    encoder_generation: str | None
    """Architecture to ask `engine_frames_per_second` for. None: it has no encoder."""
    decoder_generation: str | None
    """Architecture to ask `engine_frames_per_second` for. None: it has no decoder."""
    confidence: str
    """"H" vendor document or agreeing sources, "M" secondary, "L" least certain."""
    sources: tuple[str, ...]
    """Keys of the sources listed in data/README.md."""
    notes: str


def model_row(model_name: str) -> ModelRow | None:
    """Finds what is published about a GPU.

    Args:
        model_name: As NVML gives it: "NVIDIA L4", "Tesla T4", "NVIDIA A100-SXM4-80GB".

    Returns:
        Its row. None: the model is unknown.
    """
    name = _BRAND.sub("", " ".join(model_name.lower().split()))
    rows = _rows_by_name()
    return rows.get(name) or rows.get(_FORM_FACTOR.sub("", name))


def row_named(model: str) -> ModelRow | None:
    """Finds a row by its own name.

    Args:
        model: A `ModelRow.model`.

    Returns:
        The row. None: this version of the table has none of that name.
    """
    return _rows_by_model().get(model)


@lru_cache(maxsize=1)
def _rows_by_model() -> Mapping[str, ModelRow]:
    return {entry["model"]: _row(entry) for entry in read_table("nvenc_matrix.csv")}


@lru_cache(maxsize=1)
def _rows_by_name() -> Mapping[str, ModelRow]:
    rows = _rows_by_model()
    return {
        name.lower(): rows[entry["model"]]
        for entry in read_table("nvenc_matrix.csv")
        for name in entry["nvml_names"].split("|")
    }


def _row(entry: Mapping[str, str]) -> ModelRow:
    architecture, _, chip = entry["arch"].removesuffix(")").partition("(")
    return ModelRow(
        model=entry["model"],
        architecture=architecture,
        chip=chip or None,
        encoder_engines=int(entry["nvenc"]),
        decoder_engines=int(entry["nvdec"]),
        h264_encode=entry["h264e"] == "1",
        hevc_encode=entry["hevce"] == "1",
        av1_encode=entry["av1e"] == "1",
        hevc_10bit_encode=entry["hevc10e"] == "1",
        chroma_422_encode=entry["e422"] == "1",
        av1_decode=entry["av1d"] == "1",
        geforce_session_cap=entry["session_cap"] == "geforce",
        encoder_generation=entry["nvenc_generation"] or None,
        decoder_generation=entry["nvdec_generation"] or None,
        confidence=entry["conf"],
        sources=tuple(entry["src"].split()),
        notes=entry["notes"],
    )
