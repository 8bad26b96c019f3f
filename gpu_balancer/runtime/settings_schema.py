"""The JSON schema of a settings model, for editors: `python -m gpu_balancer.runtime.settings_schema MODULE:CLASS`.

What a key means is written below it in the source. pydantic would read that whenever a settings class is made, in every
daemon and agent; so it is read here, where alone it is wanted.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core.core_schema import ModelSchema


class _WithMeanings(GenerateJsonSchema):
    """Adds to each key what it means."""

    def model_schema(self, schema: ModelSchema) -> dict[str, Any]:
        """Extends the original."""
        described = super().model_schema(schema)
        for key, meaning in _meanings(schema["cls"]).items():
            described["properties"][key]["description"] = meaning
        return described


def settings_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Describes a settings file: types, bounds, defaults and meanings of all keys, as JSON Schema 2020-12."""
    described = model.model_json_schema(schema_generator=_WithMeanings)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def schema_text(model: type[BaseModel]) -> str:
    """Gives the schema as it stands in its file."""
    return json.dumps(settings_schema(model), indent=2, ensure_ascii=False, sort_keys=False) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Prints the schema of the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", metavar="MODULE:CLASS", help="balancer.settings:BalancerSettings, for instance")
    module, _, name = parser.parse_args(arguments).model.partition(":")
    sys.stdout.write(schema_text(getattr(importlib.import_module(module), name)))


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Reads the strings below a model's fields, its ancestors' too."""
    found: dict[str, str] = {}
    for section in reversed(model.__mro__):
        if "__pydantic_fields__" not in vars(section) or section.__module__.startswith("pydantic"):
            continue
        (source,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
        assert isinstance(source, ast.ClassDef)
        for field, below in zip(source.body, source.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str() as meaning)):
                    found[key] = inspect.cleandoc(meaning)
                case _:
                    pass
    return {key: meaning for key, meaning in found.items() if key in model.model_fields}


if __name__ == "__main__":
    main()
