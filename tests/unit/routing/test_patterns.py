# SPDX-License-Identifier: Apache-2.0
"""Which patterns cover which names; doubts about a pattern are in tests/integration/validate."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import lines_executed

from airflow_dispatch_provider.routing.patterns import covers, doubts, shadowed

PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "["]), max_size=5).map("".join)
NAMES = st.text("abc[", max_size=5)


@given(PATTERNS, PATTERNS, NAMES)
def test_what_covers_matches_all_that_the_other_does(general, special, name):
    """Never claimed where it is not so."""
    if covers(general, special) and fnmatchcase(name, special):
        assert fnmatchcase(name, general)


@pytest.mark.parametrize(
    ("general", "special"),
    [("*", "x-*"), ("gpu-*", "gpu-a?"), ("?", "[ab]"), ("[ab]*", "a-*"), ("*x*", "ax*b"), ("**", "*")],
)
def test_covers(general, special):
    assert covers(general, special)


def test_rules_of_precedence_count():
    """An exact name wins over a glob, a dag_id over none: neither is shadowed by what stands before it."""
    assert list(
        shadowed([("*", None), ("a", None), ("a*", "d"), ("*", "d*"), ("b*", "dd"), ("a*", None)])
    ) == [
        (4, 3),
        (5, 0),
    ]


@pytest.mark.parametrize(
    "pattern", ["gpu-*", "team.*", "a?", "[!a]*", "x[]]", "a:b/c", "gpu+", "*", "ünï*", "[[]x", "a[-]b"]
)
def test_no_doubt(pattern):
    """Patterns that people write, and every sign in brackets."""
    assert doubts(pattern) is None


def test_cost_grows_with_the_number_of_routes_and_not_with_its_square():
    """A file of thousands is checked on the scheduler's thread."""

    def cost(number):
        patterns = [(f"*{n}a{n}-*", None) for n in range(number)]
        return lines_executed(lambda: list(shadowed(patterns)))

    assert cost(400) < 2.5 * cost(200)
