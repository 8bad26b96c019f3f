"""A settings file is taken whole or refused whole, with every mistake told by key and line."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import Field, field_validator

from gpu_balancer.runtime.settings_file import (
    SettingsError,
    dump_settings,
    edit_settings,
    load_settings,
    parse_settings,
)
from gpu_balancer.runtime.settings_values import FROM_ROOT, Many, Section, refuse

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


class Wheel(Section):
    size_mm: int = Field(default=700, ge=100, le=1000)
    colour: str | None = None


class Frame(Section):
    material: str = "steel"
    weight_kg: float = 2.5


class Bicycle(Section):
    frame: Frame = Frame()
    wheels: Many[Wheel] = ()
    names: dict[str, Wheel] = Field(default_factory=dict)

    @field_validator("wheels")
    @classmethod
    def _two_of_a_size(cls, wheels: tuple[Wheel, ...]) -> tuple[Wheel, ...]:
        sizes = [wheel.size_mm for wheel in wheels]
        if len(set(sizes)) > 1:
            refuse(
                [
                    *(((index, "size_mm"), "must be as the others") for index in range(len(wheels))),
                    ((FROM_ROOT, "frame"), "must fit its wheels"),
                ]
            )
        return wheels


def _mistakes(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, Bicycle, source="bicycle.toml")
    assert str(caught.value).startswith("Cannot load settings bicycle.toml: ")
    assert all(str(mistake) in str(caught.value) for mistake in caught.value.mistakes)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_without_a_file_every_default_holds() -> None:
    assert load_settings(None, Bicycle) == Bicycle()


def test_a_file_needs_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "bicycle.toml"
    path.write_text('[frame]\nmaterial = "steel"\n[[wheels]]\n[[wheels]]\n')
    assert load_settings(path, Bicycle) == Bicycle(wheels=(Wheel(), Wheel()))


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "bicycle.toml"
    path.write_bytes(b"\xef\xbb\xbf[frame]\nweight_kg = 3\n")
    assert load_settings(path, Bicycle).frame.weight_kg == 3.0


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = """[frame]
matrial = "wood"
weight_kg = "light"

[[wheels]]
size_mm = 5
[[wheels]]
size_mm = true

[bell]
loud = true
"""
    assert _mistakes(text) == [
        "line 2: frame.matrial: is no key. Did you mean material?",
        'line 3: frame.weight_kg: must be a number, not "light"',
        "line 6: wheels[0].size_mm: must be at least 100, not 5",
        "line 8: wheels[1].size_mm: must be a whole number, not true",
        "line 10: bell: is no key. Known here: frame, names, wheels",
    ]


def test_one_validator_may_find_several_mistakes_also_elsewhere_in_the_file() -> None:
    text = "frame = {}\nwheels = [\n  { size_mm = 600 },\n  { size_mm = 700 },\n]\n"
    assert _mistakes(text) == [
        "line 1: frame: must fit its wheels",
        "line 3: wheels[0].size_mm: must be as the others",
        "line 4: wheels[1].size_mm: must be as the others",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("frame.weight_kg = []", "line 1: frame.weight_kg: must be a number, not an array of 0"),
        ("frame = 3", "line 1: frame: must be a table, not 3"),
        ("wheels = 3", "line 1: wheels: must be an array, [ … ], not 3"),
        ("wheels = [3]", "line 1: wheels[0]: must be a table, not 3"),
        ("[[wheels]]\nsize_mm = 700.5", "line 2: wheels[0].size_mm: must be a whole number, not 700.5"),
        ("[[wheels]]\nsize_mm = nan", "line 2: wheels[0].size_mm: must be a whole number, not nan"),
        ("[[wheels]]\ncolour = 7", "line 2: wheels[0].colour: must be a text in quotes, not 7"),
        ("[names.x]\ncolor = ''", "line 2: names.x.color: is no key. Did you mean colour?"),
        ("[frame]\nmaterial = { a = 1 }", "line 2: frame.material: must be a text in quotes, not a table"),
    ],
)
def test_a_wrong_type_is_told_in_the_words_of_toml(text: str, told: str) -> None:
    assert _mistakes(text) == [told]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[frame]\nmaterial = steel\n", 2),
        ("[frame]\n[frame]\n", 2),
        ('a = 1\na = "open\n', 2),
        ("[frame\n", 1),
        ('[frame]\nmaterial = """never\nends\n', 4),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(text: str, line: int) -> None:
    (mistake,) = _mistakes(text)
    assert mistake.startswith(f"line {line}: ")
    assert "no TOML" in mistake


def test_what_no_reader_takes_is_refused_too() -> None:
    assert _mistakes(f"[frame]\nweight_kg = {'9' * 5000}\n") == ["line 2: a number has too many digits"]
    assert _mistakes("a = " + "[" * 100_000) == ["it is nested too deep"]


def test_long_values_are_not_repeated_whole() -> None:
    (mistake,) = _mistakes(f'[frame]\nweight_kg = "{"x" * 500}"\n')
    assert len(mistake) < 120


def test_a_file_that_is_not_there_or_no_text_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: No such file.*Try --config"):
        load_settings(tmp_path / "none.toml", Bicycle)
    with pytest.raises(SettingsError, match="Is a directory"):
        load_settings(tmp_path, Bicycle)
    (tmp_path / "latin.toml").write_bytes(b"[frame]\n# caf\xe9\n")
    with pytest.raises(SettingsError, match="line 2 is not UTF-8"):
        load_settings(tmp_path / "latin.toml", Bicycle)


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="more than 4 MiB"):
        load_settings(Path("/dev/zero"), Bicycle)


_COMMENTED = """# My bicycle
[frame]   # the frame
weight_kg = 3.0 # without bottle
"""


def _set_weight(value: Any) -> Any:
    def edit(document: TOMLDocument) -> None:
        document["frame"]["weight_kg"] = value  # type: ignore[index]

    return edit


def test_an_edit_keeps_comments_and_the_mode_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bicycle.toml"
    path.write_text(_COMMENTED)
    path.chmod(0o640)
    assert edit_settings(path, _set_weight(2.0), Bicycle).frame.weight_kg == 2.0
    assert path.read_text() == _COMMENTED.replace("3.0", "2.0")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_edit_that_would_not_load_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bicycle.toml"
    path.write_text(_COMMENTED)
    with pytest.raises(SettingsError, match=r"as changed.*\n.*line 3: frame.weight_kg: must be a number"):
        edit_settings(path, _set_weight("heavy"), Bicycle)
    assert path.read_text() == _COMMENTED


def test_a_file_that_was_broken_meanwhile_is_not_edited(tmp_path: Path) -> None:
    path = tmp_path / "bicycle.toml"
    path.write_text("[frame\n")
    with pytest.raises(SettingsError, match="line 1"):
        edit_settings(path, _set_weight(2.0), Bicycle)


def test_a_file_that_cannot_be_saved_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bicycle.toml"
    path.write_text(_COMMENTED)

    def refused(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(SettingsError, match=r"Cannot save settings .*Permission denied.*Try to make"):
        edit_settings(path, _set_weight(2.0), Bicycle)


def test_what_is_dumped_loads_again_without_what_was_not_given() -> None:
    text = dump_settings({"frame": Frame(material='"steel" \\ \n'), "names": Names(first=Wheel(size_mm=600))})
    assert "colour" not in text
    read = parse_settings(text, Bicycle, source="dump")
    assert read.frame.material == '"steel" \\ \n'
    assert read.names == {"first": Wheel(size_mm=600)}


class Names(Section):
    first: Wheel
