"""The files under config/ tell the truth: every key, its default, and a schema that is current."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jsonschema
import pytest
from pydantic import BaseModel

from agents.settings import AgentSettings
from balancer.settings import BalancerSettings, ProfileSettings
from gpu_balancer.runtime.settings_file import load_settings, parse_settings
from gpu_balancer.runtime.settings_schema import main, schema_text, settings_schema
from gpu_balancer.runtime.toml_positions import find_positions

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIG = Path(__file__).parents[2] / "config"
_FILES = [("balancer", "balancer.settings:BalancerSettings", BalancerSettings),
          ("agent", "agents.settings:AgentSettings", AgentSettings)]  # fmt: skip
_COMMENTED_KEY = re.compile(r"^# (\[\[[a-z_]+\]\]|[a-z_]+ = .+)$", re.MULTILINE)


def _text(name: str) -> str:
    return (_CONFIG / f"{name}.toml").read_text()


def _with_examples(text: str) -> str:
    """Turns every commented-out key and table into a real one."""
    return _COMMENTED_KEY.sub(r"\1", text)


def _keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is ProfileSettings:
            continue
        if inner is None:
            yield f"{path}{name}"
        else:
            yield from _keys(inner, f"{path}{name}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


@pytest.mark.parametrize(("name", "_where", "model"), _FILES)
def test_the_file_as_it_ships_is_the_defaults(name: str, _where: str, model: type[BaseModel]) -> None:
    assert load_settings(_CONFIG / f"{name}.toml", model) == model()


@pytest.mark.parametrize(("name", "_where", "model"), _FILES)
def test_every_key_stands_in_the_file_and_its_examples_load(
    name: str,
    _where: str,
    model: type[BaseModel],
) -> None:
    text = _with_examples(_text(name))
    parse_settings(text, model, source=name)
    present = {".".join(str(part) for part in path if isinstance(part, str)) for path in find_positions(text)}
    assert set(_keys(model)) - present == set()


@pytest.mark.parametrize(("name", "_where", "model"), _FILES)
def test_every_key_has_a_comment_right_above_it(name: str, _where: str, model: type[BaseModel]) -> None:
    lines = _with_examples(_text(name)).partition("# Profiles: ")[0].splitlines()
    keys = [index for index, line in enumerate(lines) if re.match(r"[a-z_]+ = ", line)]
    assert len(keys) > 20
    assert [lines[index] for index in keys if not lines[index - 1].startswith("# ")] == []


def test_every_key_of_a_rendition_is_explained() -> None:
    _, _, told = _text("balancer").partition("# Profiles: ")
    rendition = _model_in(ProfileSettings.model_fields["renditions"].annotation)
    assert rendition is not None
    assert [key for key in rendition.model_fields if not re.search(rf"#   {key} = |besides {key}", told)] == []


@pytest.mark.parametrize(("name", "where", "model"), _FILES)
def test_the_schema_file_is_current(
    name: str, where: str, model: type[BaseModel], capsys: pytest.CaptureFixture[str]
) -> None:
    """When it is not: python -m gpu_balancer.runtime.settings_schema MODULE:CLASS > config/NAME.schema.json."""
    main([where])
    assert capsys.readouterr().out == (_CONFIG / f"{name}.schema.json").read_text() == schema_text(model)


@pytest.mark.parametrize(("name", "_where", "model"), _FILES)
def test_the_files_and_their_examples_fit_the_schema(name: str, _where: str, model: type[BaseModel]) -> None:
    schema = json.loads((_CONFIG / f"{name}.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for text in (_text(name), _with_examples(_text(name))):
        assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    "bad", [{"servr": {}}, {"placement": {"headroom": 2}}, {"devices": [{"match": 5}]}, {"log": 1}]
)
def test_the_schema_refuses_what_an_editor_should_underline(bad: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(settings_schema(BalancerSettings))
    assert not validator.is_valid(bad)


@pytest.mark.parametrize(("name", "_where", "model"), _FILES)
def test_every_key_of_the_schema_says_what_it_means(name: str, _where: str, model: type[BaseModel]) -> None:
    schema = settings_schema(model)
    silent = [
        f"{title}.{key}"
        for title, definition in schema["$defs"].items()
        for key, described in definition["properties"].items()
        if not described.get("description")
    ]
    assert silent == []
