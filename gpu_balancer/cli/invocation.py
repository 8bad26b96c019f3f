"""How a command is registered and run: shared options, option groups, errors in words, exit codes.

A command is a function whose first parameter is the `Invocation`. Its other parameters are typer's; one whose type is a
dataclass stands for the fields of that dataclass, so that commands share options. `--json` and `--address` may stand
before or after the command's name; so may `--headings`, where a command writes tables.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from gpu_balancer.cli.error_text import complain
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
HeadingsOption = Annotated[
    bool, typer.Option("--headings", help="Write the names of the columns first when tables go into a pipe or file.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="The daemon: unix:/path or host:port. Default: GPU_BALANCER_ADDRESS, else the default socket.",
    ),
]


class Misuse(Exception):
    """What was typed cannot be meant; the message says why and what would be right."""


@contextmanager
def spelled(option: str) -> Iterator[None]:
    """Tells a `ValueError` inside as a mistake in an option."""
    try:
        yield
    except ValueError as error:
        raise Misuse(f"Cannot use {option}: {str(error).rstrip('.')}.") from error


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One run of the command: what was asked of all commands alike."""

    address: str | None = None
    """None: from the environment, else the default socket."""
    json: bool = False
    headings: bool = False
    """Whether tables that are no terminal's begin with the names of their columns."""

    def client(self) -> Client:
        """Makes a client; gRPC is loaded here."""
        from gpu_balancer.client import Client

        with spelled("--address"):
            return Client(self.address)

    def screen(self) -> Screen:
        """Makes the screen; rich is loaded when it draws."""
        from gpu_balancer.cli.screen import Screen

        return Screen(json=self.json, headings=self.headings)


Body = Any
"""A command: a function of an `Invocation` and its own parameters that returns an exit code, or None for 0."""


def command(app: typer.Typer, name: str, *, tables: bool = False, **settings: Any) -> Callable[[Body], Body]:
    """Registers a function as a command.

    Args:
        app: Where it is registered.
        name: What is typed.
        tables: Whether it writes tables, so that it takes `--headings`.
        settings: Passed on to typer.
    """

    def register(body: Body) -> Body:
        hints = get_type_hints(body, include_extras=True)
        declared = list(inspect.signature(body).parameters.values())[1:]
        groups = {one.name: hints[one.name] for one in declared if dataclasses.is_dataclass(hints[one.name])}

        def run(**values: Any) -> None:
            context: typer.Context = values.pop("context")
            given: Invocation = context.find_root().obj or Invocation()
            invocation = Invocation(
                address=values.pop("address_") or given.address,
                json=values.pop("json_") or given.json,
                headings=values.pop("headings_", False) or given.headings,
            )
            for group_name, group in groups.items():
                fields = {one.name: values.pop(one.name) for one in dataclasses.fields(group)}
                values[group_name] = group(**fields)
            raise typer.Exit(guarded(lambda: body(invocation, **values)))

        parameters = [_parameter("context", typer.Context), *_expanded(declared, hints, groups)]
        if tables:
            parameters.append(_parameter("headings_", HeadingsOption, False))
        parameters += [_parameter("json_", JsonOption, False), _parameter("address_", AddressOption, None)]
        run.__doc__ = body.__doc__
        run.__name__ = body.__name__
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app.command(name, **settings)(run)
        return body

    return register


def _expanded(
    declared: list[inspect.Parameter], hints: dict[str, Any], groups: dict[str, Any]
) -> Iterator[inspect.Parameter]:
    """Gives the parameters with each group replaced by its fields."""
    for one in declared:
        if one.name not in groups:
            yield _parameter(one.name, hints[one.name], one.default)
            continue
        field_hints = get_type_hints(groups[one.name], include_extras=True)
        for field in dataclasses.fields(groups[one.name]):
            default: Any = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            elif field.default is dataclasses.MISSING:
                default = inspect.Parameter.empty
            yield _parameter(field.name, field_hints[field.name], default)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def guarded(work: Callable[[], int | None]) -> int:
    """Runs a command's work; tells what goes wrong on standard error and as an exit code."""
    try:
        code = work() or ExitCode.OK
        sys.stdout.flush()
    except Misuse as mistake:
        return complain(str(mistake), ExitCode.USAGE)
    except RequestFailure as failure:
        from gpu_balancer.cli.complaints import complain_of

        return complain_of(failure)
    except BrokenPipeError:
        # Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PIPE_CLOSED
    except OSError as error:
        words = f"Cannot use {error.filename}: {error.strerror}." if error.filename else str(error)
        return complain(words, ExitCode.LOCAL_FILES)
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        return ExitCode.INTERRUPTED
    return code
