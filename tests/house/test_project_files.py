"""What is checked in speaks of this project alone: no path of somebody's machine, no registry's host, no credential."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from house_sources import REPOSITORY, project_files

# Put together here so that this file is none of what it looks for.
FOREIGN = {
    "a folder of the machine it was written on": "|".join(
        (r"/" + r"work/\w", r"/home/(?!ada\b|me\b|user\b)\w+", "/" + "Users/")
    ),
    "a package registry's host": "|".join(
        re.escape(host)
        for host in (
            "pypi" + ".org",
            "files.python" + "hosted.org",
            "registry." + "npmjs",
            "registry." + "yarnpkg",
            "npm" + "mirror",
        )
    ),
    "a key": r"-----BEGIN [A-Z ]*PRIVATE " + r"KEY-----|\bAKIA[0-9A-Z]{16}\b|\bghp_[A-Za-z0-9]{36}\b",
}
BINARY_SUFFIXES = {".binpb"}


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_has(what: str) -> None:
    pattern = re.compile(FOREIGN[what])
    found = [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in project_files()
        if path.suffix not in BINARY_SUFFIXES
        for number, line in enumerate((REPOSITORY / path).read_text("utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_text_files_are_utf8_and_end_in_one_newline() -> None:
    wrong = []
    for path in project_files():
        data = (REPOSITORY / path).read_bytes()
        if path.suffix in BINARY_SUFFIXES or not data:
            continue
        data.decode("utf-8")
        if not data.endswith(b"\n") or data.endswith(b"\n\n") or b"\r" in data:
            wrong.append(str(path))
    assert wrong == []


def test_no_large_or_built_file_is_checked_in() -> None:
    largest = 512 * 1024
    wrong = [
        str(path)
        for path in project_files()
        if (REPOSITORY / path).stat().st_size > largest or path.suffix in {".pyc", ".so", ".whl", ".gz", ".mp4", ".o"}
    ]
    assert wrong == []


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(path.name[:4] for path in project_files() if path.parent == Path("docs/decisions"))
    assert numbers == [f"{number:04d}" for number in range(1, len(numbers) + 1)]
