# SPDX-License-Identifier: Apache-2.0
"""Docstrings begin with a verb or a noun that names their subject."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[3]
SOURCES = ("airflow_dispatch_provider", "dev", "tests")


def docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each, also of those below attributes and constants."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text.strip()


def test_no_docstring_begins_with_what():
    files = [file for folder in SOURCES for file in (ROOT / folder).rglob("*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for file in files
        for line, text in docstrings(file)
        if text.startswith("What ")
    ]
    assert files
    assert not found, "\n".join(found)
