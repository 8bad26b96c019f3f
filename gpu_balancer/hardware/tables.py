"""The tables of facts that come with the package, as rows of text.

They are constants kept as CSV, because people correct and compare them as tables; each reader reads its own once, at
first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import csv
from importlib import resources


def read_table(file_name: str) -> tuple[dict[str, str], ...]:
    """Reads a table of the package.

    Args:
        file_name: Name of a file in the data folder.

    Returns:
        Its rows by column name, in the order of the file.
    """
    text = resources.files("gpu_balancer.hardware").joinpath("data", file_name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
