"""The JSON schema of a settings model, for editors: `python -m gpu_balancer.runtime.settings_schema MODULE:CLASS`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel


def settings_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Describes a settings file: types, bounds, defaults and meanings of all keys, as JSON Schema 2020-12."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}


def schema_text(model: type[BaseModel]) -> str:
    """Gives the schema as it stands in its file."""
    return json.dumps(settings_schema(model), indent=2, ensure_ascii=False, sort_keys=False) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Prints the schema of the model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", metavar="MODULE:CLASS", help="balancer.settings:BalancerSettings, for instance")
    module, _, name = parser.parse_args(arguments).model.partition(":")
    sys.stdout.write(schema_text(getattr(importlib.import_module(module), name)))


if __name__ == "__main__":
    main()
