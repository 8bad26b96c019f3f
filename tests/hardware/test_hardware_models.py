"""What the table of GPU models says, and above all what it does not say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpu_balancer.hardware import model_row, row_named
from gpu_balancer.hardware.tables import read_table


@pytest.mark.parametrize(
    ("model_name", "row"),
    [
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "Tesla T4"),
        ("NVIDIA T4", "Tesla T4"),
        ("Tesla V100-SXM2-16GB", "Tesla V100"),
        ("Tesla V100-PCIE-32GB", "Tesla V100"),
        ("Tesla V100-FHHL-16GB", "Tesla V100"),
        ("Tesla P100-PCIE-16GB", "Tesla P100"),
        ("Tesla P4", "Tesla P4"),
        ("Tesla P40", "Tesla P40"),
        ("Tesla M60", "Tesla M60"),
        ("NVIDIA A2", "A2"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A16", "A16"),
        ("NVIDIA A30", "A30"),
        ("NVIDIA A40", "A40"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("A100-SXM4-40GB", "A100"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX A2000 12GB", "RTX A2000"),
        ("NVIDIA RTX A5500", "RTX A5000/A5500"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA H100 NVL", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA GH200 144G HBM3e", "GH200"),
        ("NVIDIA B200", "B200/GB200"),
        ("NVIDIA GB200", "B200/GB200"),
        ("NVIDIA GB10", "GB10(DGX Spark)"),
        ("NVIDIA GeForce GTX 1050 Ti", "GTX 1050/1060"),
        ("NVIDIA GeForce GTX 1060 6GB", "GTX 1050/1060"),
        ("GeForce GTX 1080 Ti", "GTX 1070/1080/1080Ti"),
        ("NVIDIA GeForce GTX 1650", "GTX 1650(TU117)"),
        ("NVIDIA GeForce GTX 1660 SUPER", "GTX 1660/RTX 20xx"),
        ("NVIDIA GeForce RTX 2080 Ti", "GTX 1660/RTX 20xx"),
        ("NVIDIA GeForce RTX 3050", "RTX 3050-3090Ti"),
        ("NVIDIA GeForce RTX 3090", "RTX 3050-3090Ti"),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3050-3090Ti"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4050/4060/4060Ti/4070"),
        ("NVIDIA GeForce RTX 4070", "RTX 4050/4060/4060Ti/4070"),
        ("NVIDIA GeForce RTX 4070 Ti", "RTX 4070Ti/4080"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("nvidia  geforce rtx 5070 ti", "RTX 5070Ti"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA RTX 4000 Ada Generation", "RTX 4000/4500 Ada"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000"),
    ],
)
def test_a_model_is_found_by_the_name_the_driver_gives_it(model_name: str, row: str) -> None:
    found = model_row(model_name)
    assert found is not None
    assert found.model == row


@pytest.mark.parametrize(
    "model_name",
    [
        "",
        "NVIDIA",
        "Tesla",
        "NVIDIA GeForce",
        "NVIDIA L",
        "NVIDIA L400",
        "NVIDIA L40G",
        "NVIDIA A1000",
        "NVIDIA A10M",
        "NVIDIA A10-24Q",
        "GRID T4-16Q",
        "NVIDIA A100X",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA T400 4GB",
        "NVIDIA T1000",
        "NVIDIA H20",
        "Quadro RTX 4000",
        "Quadro RTX 6000",
        "Quadro P4000",
        "Quadro P400",
        "NVIDIA RTX 6000",
        "NVIDIA RTX 4090",
        "NVIDIA TITAN RTX",
        "NVIDIA TITAN V",
        "NVIDIA GeForce GTX 1650 SUPER",
        "NVIDIA GeForce GTX 1660 Ti with Max-Q Design",
        "NVIDIA GeForce RTX 3080 Laptop GPU",
        "NVIDIA GeForce RTX 3080 Ti Laptop GPU",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce MX450",
        "NVIDIA GeForce RTX 30",
        "Intel Arc A380",
        "AMD Radeon Pro W6800",
    ],
)
def test_a_model_that_only_resembles_a_row_is_unknown(model_name: str) -> None:
    """A wrong row would promise engines that are not there."""
    assert model_row(model_name) is None


def test_every_row_is_found_under_each_of_its_names_and_no_name_is_in_two_rows() -> None:
    seen: set[str] = set()
    for entry in read_table("nvenc_matrix.csv"):
        for name in entry["nvml_names"].split("|"):
            assert name not in seen
            seen.add(name)
            found = model_row(f"NVIDIA {name}")
            assert found is not None
            assert found.model == entry["model"]
            assert found is row_named(entry["model"])


def test_a_row_tells_engines_codecs_and_where_it_is_from() -> None:
    row = model_row("NVIDIA L4")
    assert row is not None
    assert (row.architecture, row.chip) == ("Ada", "AD104")
    assert (row.encoder_engines, row.decoder_engines) == (2, 4)
    assert row.h264_encode
    assert row.hevc_encode
    assert row.av1_encode
    assert row.hevc_10bit_encode
    assert row.av1_decode
    assert not row.chroma_422_encode
    assert not row.geforce_session_cap
    assert row.confidence == "H"
    assert row.sources == ("S2", "S5")
    assert "NVDEC" in row.notes


def test_geforce_cards_have_the_systemwide_session_cap_and_others_have_not() -> None:
    geforce = model_row("NVIDIA GeForce RTX 4090")
    data_centre = model_row("NVIDIA L40S")
    assert geforce is not None
    assert data_centre is not None
    assert geforce.geforce_session_cap
    assert not data_centre.geforce_session_cap


@pytest.mark.parametrize("model_name", ["NVIDIA A100-SXM4-80GB", "NVIDIA A30", "NVIDIA H100 PCIe", "NVIDIA B200"])
def test_cards_for_computing_have_decoders_but_no_encoder(model_name: str) -> None:
    row = model_row(model_name)
    assert row is not None
    assert row.encoder_engines == 0
    assert row.encoder_generation is None
    assert not row.h264_encode
    assert not row.hevc_encode
    assert not row.av1_encode
    assert row.decoder_engines > 0


def test_an_unknown_row_name_is_none() -> None:
    assert row_named("RTX 9090") is None


def test_importing_the_tables_reads_nothing() -> None:
    """The agent imports them on its way to SERVING; they are read at the first question."""
    program = (
        "import sys, gpu_balancer.hardware.models as m, gpu_balancer.hardware.engine_speeds as e\n"
        "assert m._rows_by_model.cache_info().currsize == 0\n"
        "assert e._figures.cache_info().currsize == 0\n"
        "assert not {'grpc', 'pydantic', 'google.protobuf'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
