"""How fast one engine is said to be."""

from __future__ import annotations

import pytest

from gpu_balancer.hardware import engine_frames_per_second, row_named
from gpu_balancer.hardware.tables import read_table


@pytest.mark.parametrize("architecture", ["Ada", "ada", "Ada Lovelace", "Ada(AD104)"])
def test_a_figure_is_found_by_any_spelling_of_the_architecture(architecture: str) -> None:
    assert engine_frames_per_second("nvenc", "h264", "p3", "hq", architecture) == (647, 2415)


def test_a_decoder_has_neither_preset_nor_tuning() -> None:
    assert engine_frames_per_second("nvdec", "hevc_10", None, None, "Turing") == (1158, 1950)
    assert engine_frames_per_second("nvdec", "hevc_10", "p1", "ll", "Turing") == (1158, 1950)


@pytest.mark.parametrize(("preset", "published"), [("p2", "p3"), ("p4", "p5"), ("p6", "p7"), ("p7", "p7")])
def test_a_preset_without_a_figure_gets_the_next_slower_one(preset: str, published: str) -> None:
    figure = engine_frames_per_second("nvenc", "hevc", preset, "hq", "Ampere")
    assert figure is not None
    assert figure == engine_frames_per_second("nvenc", "hevc", published, "hq", "Ampere")


def test_a_generation_published_without_a_clock_has_none() -> None:
    assert engine_frames_per_second("nvenc", "av1", "p5", "hq", "Blackwell") == (552, None)
    assert engine_frames_per_second("nvdec", "av1", None, None, "Thor") == (794, None)


def test_volta_is_pascal_at_its_own_clock_and_maxwell_two_thirds_of_it() -> None:
    assert engine_frames_per_second("nvenc", "h264", "p3", "hq", "Volta") == (398, 1708)
    assert engine_frames_per_second("nvenc", "h264", "p3", "hq", "Maxwell2") == (265, 1708)


def test_hopper_decodes_like_turing_and_does_not_encode() -> None:
    hopper = engine_frames_per_second("nvdec", "h264", None, None, "Hopper")
    assert hopper is not None
    assert hopper == engine_frames_per_second("nvdec", "h264", None, None, "Turing")
    assert engine_frames_per_second("nvenc", "h264", "p1", "hq", "Hopper") is None


@pytest.mark.parametrize(
    ("engine", "codec", "preset", "architecture"),
    [
        ("nvenc", "av1", "p1", "Ampere"),
        ("nvdec", "av1", None, "Turing"),
        ("nvenc", "mpeg2", "p1", "Ada"),
        ("nvenc", "h264", "p9", "Ada"),
        ("nvenc", "h264", None, "Ada"),
        ("nvenc", "h264", "p1", "Kepler"),
        ("nvenc", "h264", "p1", ""),
    ],
)
def test_what_is_not_published_is_unknown(engine: str, codec: str, preset: str | None, architecture: str) -> None:
    assert engine_frames_per_second(engine, codec, preset, "hq", architecture) is None  # type: ignore[arg-type]


def test_every_row_of_the_model_table_names_generations_with_figures() -> None:
    for entry in read_table("nvenc_matrix.csv"):
        row = row_named(entry["model"])
        assert row is not None
        assert (row.encoder_generation is None) == (row.encoder_engines == 0)
        if row.encoder_generation:
            assert engine_frames_per_second("nvenc", "h264", "p3", "hq", row.encoder_generation) is not None
            av1 = engine_frames_per_second("nvenc", "av1", "p3", "hq", row.encoder_generation)
            assert (av1 is not None) or not row.av1_encode or row.encoder_generation == "thor"
        assert row.decoder_generation is not None
        assert engine_frames_per_second("nvdec", "h264", None, None, row.decoder_generation) is not None
        if row.av1_decode:
            assert engine_frames_per_second("nvdec", "av1", None, None, row.decoder_generation) is not None
