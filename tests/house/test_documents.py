"""Documents lead somewhere, and what they show can be typed."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from house_sources import REPOSITORY, documents, project_files, text_of

from gpu_balancer import AsyncClient, Client

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCUMENTS = documents()


def heading_anchors(text: str) -> set[str]:
    """Gives the anchors of a document's headings as GitHub makes them."""
    prose = FENCE.sub("", text)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_relative_links_lead_somewhere(path: Path) -> None:
    """Only to what is checked in: a link to a file that is not works on one machine alone."""
    kept = {str(file) for file in project_files()}
    folders = {str(parent) for file in project_files() for parent in file.parents}
    broken = []
    for target in LINK.findall(FENCE.sub("", text_of(path))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (REPOSITORY / path.parent / file).resolve().relative_to(REPOSITORY) if file else path
        leads = str(found) in kept or str(found) in folders
        if not leads or (anchor and anchor not in heading_anchors(text_of(found))):
            broken.append(target)
    assert broken == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [Path("README.md")]
    while waiting:
        path = waiting.pop()
        if path in seen or path not in DOCUMENTS:
            continue
        seen.add(path)
        for target in LINK.findall(text_of(path)):
            found = (REPOSITORY / path.parent / target.partition("#")[0]).resolve()
            if not found.is_relative_to(REPOSITORY):
                continue
            inside = found.relative_to(REPOSITORY)
            waiting += [inside] if found.is_file() else [one for one in DOCUMENTS if one.parent == inside]
    assert set(DOCUMENTS) - seen <= {Path("CHANGELOG.md")}


def shown(language: str) -> list[tuple[str, str]]:
    """Gives the blocks of a language in all documents, each with its document's name."""
    return [(str(path), body) for path in DOCUMENTS for name, body in FENCE.findall(text_of(path)) if name == language]


def typed_commands() -> list[tuple[str, str]]:
    """Gives every `gpu-balancer …` line that documents show to be typed."""
    lines = [
        (name, line.removeprefix("$ ").split("  #")[0])
        for name, body in shown("console")
        for line in body.replace("\\\n", " ").splitlines()
        if line.startswith("$ ")
    ]
    return [(name, line) for name, line in lines if line.startswith("gpu-balancer ")]


@cache
def the_command() -> Any:
    """Gives the command with all that is below it."""
    import typer.main

    from gpu_balancer.cli.app import app

    return typer.main.get_command(app)


@pytest.mark.parametrize(("name", "line"), typed_commands())
def test_shown_commands_exist_with_their_options(name: str, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "&"]
    command = the_command()
    while getattr(command, "commands", None) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    options = {text for parameter in command.params for text in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help", "--json", "--address", "--install-completion", "--show-completion"}
    unknown = [word for word in words if word.startswith("-") and word != "-" and word.split("=")[0] not in options]
    takes_words = any(parameter.param_type_name == "argument" for parameter in command.params)
    assert unknown == [], f"{name}: {line}"
    assert takes_words or getattr(command, "commands", None) is None or not words, f"{name}: {line}: no such command"


def test_documents_show_commands() -> None:
    assert len(typed_commands()) >= 10


@pytest.mark.parametrize(("name", "code"), shown("python"))
def test_shown_python_calls_the_client_as_it_is(name: str, code: str) -> None:
    classes = {"client": AsyncClient if "AsyncClient" in code else Client, "Client": Client, "AsyncClient": AsyncClient}
    calls = 0
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "client":
            function = getattr(classes["client"], called.attr)
            first: tuple[object, ...] = (None,)
        elif isinstance(called, ast.Name) and called.id in classes:
            function, first = classes[called.id], ()
        else:
            continue
        keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        inspect.signature(function).bind(*first, *node.args, **keywords)
        calls += 1
    assert calls or "Client" not in code, f"{name}: nothing of it was looked at"
