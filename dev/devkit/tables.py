# SPDX-License-Identifier: Apache-2.0
"""Tables as plain text, the same on a terminal and in a file. Pure, and without anything that is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

Cell = str | float | None
"""None is shown as ``-``."""


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    formats: Mapping[str, str] = MappingProxyType({}),
    rule: bool = False,
) -> list[str]:
    """Lines with aligned columns, those with numbers to the right.

    :param formats: of the floats in a column, by its header; two decimals by default
    :param rule: whether there is a line of hyphens below the headers
    """
    specs = [formats.get(header, ".2f") for header in headers]
    texts = [list(map(_text, row, specs)) for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    are_numbers = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(headers))]
    rules = [["-" * width for width in widths]] if rule else []
    return [
        "  ".join(map(_aligned, line, widths, are_numbers)).rstrip() for line in [headers, *rules, *texts]
    ]


def _text(cell: Cell, spec: str) -> str:
    return "-" if cell is None else format(cell, spec) if isinstance(cell, float) else str(cell)


def _aligned(text: str, width: int, is_number: bool) -> str:
    return text.rjust(width) if is_number else text.ljust(width)
