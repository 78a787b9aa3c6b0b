# SPDX-License-Identifier: Apache-2.0
"""Tables of the commands in ./dev."""

from __future__ import annotations

from devkit.tables import table


def test_columns_with_numbers_are_aligned_to_the_right() -> None:
    rows = [("one", 5, 1.255, "a"), ("fourteen", None, 12.0, None)]
    assert table(("name", "count", "seconds", "note"), rows, {"seconds": ".1f"}) == [
        "name      count  seconds  note",
        "one           5      1.3  a",
        "fourteen      -     12.0  -",
    ]


def test_a_rule_is_as_wide_as_the_columns_and_no_line_ends_in_spaces() -> None:
    assert table(("a", "number", ""), [("long", 0.5, "")], rule=True) == [
        "a     number",
        "----  ------",
        "long    0.50",
    ]


def test_without_rows_there_are_the_headers() -> None:
    assert table(("a", "b"), []) == ["a  b"]
