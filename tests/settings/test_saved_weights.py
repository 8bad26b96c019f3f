"""A weight set by hand gets into the file, for its device alone, and nothing else changes."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from balancer.settings import BalancerSettings
from balancer.settings.device_entries import DeviceNames, entry_fits
from balancer.settings.saved_weights import save_weight
from gpu_balancer.runtime.settings_file import SettingsError, load_settings

if TYPE_CHECKING:
    from pathlib import Path

_L4 = DeviceNames(id="GPU-aaaa1111-0", model="NVIDIA L4", pci_address="00000000:65:00.0", index=0)
_L4_TOO = DeviceNames(id="GPU-aaaa2222-0", model="NVIDIA L4", pci_address="00000000:B3:00.0", index=1)
_T4 = DeviceNames(id="GPU-bbbb1111-0", model="Tesla T4", pci_address="00000001:0A:00.0", index=2)
_CPU = DeviceNames(id="cpu-0", is_cpu=True, cores=(0, 1, 2, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A settings file's path."""
    return tmp_path / "balancer.toml"


def _weights(path: Path, *devices: DeviceNames) -> list[int | None]:
    """The weight that the file gives each device: of the first entry that fits."""
    entries = load_settings(path, BalancerSettings).devices
    return [next((it.weight for it in entries if entry_fits(it.match, device)), None) for device in devices]


@pytest.mark.parametrize(
    "match",
    [
        "GPU-aaaa1111-0",
        "gpu-AAAA1111-*",
        "00000000:65:00.0",
        "0000:65:00.0",
        "65:00.0",
        "0",
        "NVIDIA L4",
        "L4",
        "*L4",
        "l?",
    ],
)
def test_an_entry_names_a_device_by_uuid_pci_address_index_or_model(match: str) -> None:
    assert entry_fits(match, _L4)
    assert not entry_fits(match, _T4)
    assert not entry_fits(match, _CPU)


def test_a_pci_address_in_another_domain_is_another_device() -> None:
    assert entry_fits("0001:0a:00.0", _T4)
    assert not entry_fits("0000:0a:00.0", _T4)


def test_the_weight_of_an_entry_changes_in_its_place(path: Path) -> None:
    text = """# My machine

[[devices]]
match = "65:00.0" # the left one
weight = 66       # measured
encoder_sessions = 3

# media
[inputs]
roots = ["/srv"]
"""
    path.write_text(text)
    path.chmod(0o644)
    settings = save_weight(path, _L4, 80, others=(_L4_TOO, _T4))
    assert path.read_text() == text.replace("weight = 66 ", "weight = 80 ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert settings.devices[0].weight == 80


def test_a_weight_that_was_not_given_comes_into_its_entry(path: Path) -> None:
    path.write_text('[[devices]]\nmatch = "0"\n\n# media\n[inputs]\nroots = []\n')
    save_weight(path, _L4, 80, others=(_L4_TOO,))
    assert path.read_text() == '[[devices]]\nmatch = "0"\nweight = 80\n\n# media\n[inputs]\nroots = []\n'


def test_a_device_without_an_entry_gets_one_behind_the_others(path: Path) -> None:
    path.write_text('[[devices]]\nmatch = "Tesla*"\nweight = 40\n\n# media\n[inputs]\nroots = []\n')
    save_weight(path, _L4, 80, others=(_T4,))
    assert path.read_text() == (
        '[[devices]]\nmatch = "Tesla*"\nweight = 40\n\n'
        '[[devices]]\nmatch = "GPU-aaaa1111-0"\nweight = 80\n\n# media\n[inputs]\nroots = []\n'
    )


def test_the_first_entry_of_a_file_goes_to_its_end(path: Path) -> None:
    path.write_text("[placement]\nheadroom = 0.8 # careful\n")
    save_weight(path, _L4, 80)
    assert path.read_text().startswith("[placement]\nheadroom = 0.8 # careful\n")
    assert _weights(path, _L4) == [80]


def test_an_entry_for_several_devices_keeps_the_others_as_they_are(path: Path) -> None:
    path.write_text('[[devices]]\nmatch = "*L4" # both\nweight = 66\nencoder_sessions = 3\n')
    save_weight(path, _L4_TOO, 20, others=(_L4, _T4))
    assert _weights(path, _L4, _L4_TOO, _T4) == [66, 20, None]
    entries = load_settings(path, BalancerSettings).devices
    assert [entry.encoder_sessions for entry in entries] == [3, 3]
    assert "# both" in path.read_text()


def test_the_same_entry_is_changed_in_place_when_it_fits_one_device_only(path: Path) -> None:
    path.write_text('[[devices]]\nmatch = "*L4"\nweight = 66\n')
    save_weight(path, _L4, 20, others=(_T4,))
    assert path.read_text() == '[[devices]]\nmatch = "*L4"\nweight = 20\n'


def test_entries_in_one_line_are_followed_too(path: Path) -> None:
    path.write_text('devices = [{ match = "0", weight = 5 }, { match = "Tesla T4" }] # short\n')
    save_weight(path, _T4, 7, others=(_L4, _L4_TOO))
    save_weight(path, _L4_TOO, 9, others=(_L4, _T4))
    assert _weights(path, _L4, _L4_TOO, _T4) == [5, 9, 7]
    assert "# short" in path.read_text()


def test_a_cpu_devices_weight_changes_in_its_entry(path: Path) -> None:
    path.write_text('[[cpu_devices]]\nname = "cpu-0"\ncores = "0-3"\n[[cpu_devices]]\nname = "cpu-1"\ncores = "4"\n')
    settings = save_weight(path, _CPU, 30)
    assert [device.weight for device in settings.cpu_devices] == [30, None]


def test_the_cpu_device_that_exists_without_an_entry_gets_one_with_its_cores(path: Path) -> None:
    path.write_text("")
    (device,) = save_weight(path, _CPU, 30).cpu_devices
    assert (device.name, device.cores, device.weight) == ("cpu-0", "0-3", 30)


@pytest.mark.parametrize("weight", [-1, 10_001])
def test_an_impossible_weight_leaves_the_file(path: Path, weight: int) -> None:
    text = '[[devices]]\nmatch = "0"\nweight = 5\n'
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"line 3: devices\[0\]\.weight: must be"):
        save_weight(path, _L4, weight)
    assert path.read_text() == text


def test_the_last_weight_above_0_cannot_be_saved_away(path: Path) -> None:
    text = '[[devices]]\nmatch = "0"\nweight = 5\n[[devices]]\nmatch = "1"\nweight = 0\n'
    path.write_text(text)
    with pytest.raises(SettingsError, match="only weights of 0"):
        save_weight(path, _L4, 0, others=(_L4_TOO,))
    assert path.read_text() == text
