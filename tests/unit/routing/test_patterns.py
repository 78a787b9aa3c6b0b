# SPDX-License-Identifier: Apache-2.0
"""Which patterns cover which names; doubts about a pattern are in tests/integration/validate."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import lines_executed

from airflow_dispatch_provider.routing.patterns import Doubt, covers, doubts, shadowed

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


@pytest.mark.parametrize(
    ("first", "second", "shadows"),
    [
        (("q", None), ("q", None), True),
        (("q", "d"), ("q", "d"), True),
        (("q", "d*"), ("q", "dd"), True),
        (("q", "d"), ("q", "e"), False),
        (("q", "d"), ("q", None), False),
        (("q", None), ("q", "d"), False),
        (("q", None), ("p", None), False),
        (("x*", None), ("x*", None), True),
    ],
)
def test_a_route_that_says_the_same_again_gets_nothing(first, second, shadows):
    """Or less than an earlier one of its kind."""
    assert list(shadowed([first, second])) == ([(1, 0)] if shadows else [])


def test_rules_of_precedence_count():
    """An exact name wins over a glob, a dag_id over none: neither is shadowed by what stands before it."""
    assert list(
        shadowed([("*", None), ("a", None), ("a*", "d"), ("*", "d*"), ("b*", "dd"), ("a*", None)])
    ) == [
        (4, 3),
        (5, 0),
    ]


@pytest.mark.parametrize(
    "pattern",
    ["gpu-*", "team.*", "a?", "[!a]*", "x[]]", "a:b/c", "gpu+", "*", "ünï*", "[[]x", "a[-]b", "a[|;]b", "|"],
)
def test_no_doubt(pattern):
    """Patterns that people write, and every sign in brackets."""
    assert doubts(pattern) is None


NO_GLOB, LITERAL = "which is a regular expression, not a glob", "whose alternatives are taken literally"


@pytest.mark.parametrize(
    ("pattern", "found", "remedy"),
    [
        (" gpu", "which begins or ends with a blank", 'Write "gpu".'),
        ("gpu* ", "which begins or ends with a blank", 'Write "gpu*".'),
        ("gpu[", "whose bracket is not closed", 'Write "gpu[[]" for the bracket itself, or leave it out.'),
        ("a[b-", "whose bracket is not closed", 'Write "a[b-]", or "a[[]b-" for the bracket itself.'),
        ("gpu[z-a]*", "whose range z-a is empty", 'Write "gpu[a-z]*".'),
        ("x[9-0][z-a]", "whose range 9-0 is empty", 'Write "x[0-9][z-a]".'),
        (
            "gpu-{{ team }}",
            "in which nothing is filled in",
            'Write the name itself, or "gpu-[{][{] team }}" for the signs themselves.',
        ),
        ("gpu-{a,b}-x", LITERAL, 'Write "gpu-[ab]-x", or "gpu-[{]a[,]b}-x" for the sign itself.'),
        (
            "(gpu|cpu)*",
            LITERAL,
            'Write a route for each, "gpu*", "cpu*", or "[(]gpu|cpu)*" for the sign itself.',
        ),
        ("^gpu.*$", NO_GLOB, 'Write "gpu*", or "[^]gpu[.]*[$]" for the signs themselves.'),
        ("^gpu$", NO_GLOB, 'Write "gpu", or "[^]gpu[$]" for the signs themselves.'),
        (
            r"gpu\.[0-9]+",
            NO_GLOB,
            r'Write "gpu.*", or "gpu[\\][.][0-9][+]" for the signs themselves.',
        ),
        ("^$", NO_GLOB, 'Write a glob with * and ?, or "[^][$]" for the signs themselves.'),
        (
            "a, b,",
            "which is a list",
            'Write a route for each, "a", "b", or "a[,] b[,]" for the comma itself.',
        ),
    ],
)
def test_a_pattern_that_cannot_mean_what_is_written_is_a_mistake_with_a_remedy(pattern, found, remedy):
    """The remedy is text to copy."""
    assert doubts(pattern) == Doubt(found, remedy, certain=True)


@pytest.mark.parametrize(
    ("pattern", "found", "remedy"),
    [
        ("gpu.+x", "whose dot is a dot", 'Write "gpu*x", or "gpu[.]+x" for the dot itself.'),
        (".*gpu", "whose dot is a dot", 'Write "*gpu", or "[.]*gpu" for the dot itself.'),
        ("heavy.*gpu", "whose dot is a dot", 'Write "heavy*gpu", or "heavy[.]*gpu" for the dot itself.'),
        (
            "heavy|light",
            "whose | stands for itself",
            'Write a route for each, "heavy", "light", or "heavy[|]light" for the sign itself.',
        ),
        (
            "a; b*;",
            "whose ; stands for itself",
            'Write a route for each, "a", "b*", or "a[;] b*[;]" for the sign itself.',
        ),
        ("gpu%", "whose % is a percent sign", 'Write "gpu*", or "gpu[%]" for the sign itself.'),
        ("g***u", "whose ** is no more than *", 'Write "g*u".'),
    ],
)
def test_a_pattern_that_may_mean_what_is_written_is_doubted(pattern, found, remedy):
    """A queue may be called so."""
    assert doubts(pattern) == Doubt(found, remedy, certain=False)


@pytest.mark.parametrize(("pattern", "sign", "remedy"), [("a/b*", "/", "a?b*"), ("my dag", " ", "my?dag")])
def test_a_dag_id_pattern_with_a_sign_that_none_has_is_a_mistake(pattern, sign, remedy):
    """Queues may have it."""
    found = f'and no dag_id has a "{sign}"'
    assert doubts(pattern, dag_id=True) == Doubt(found, f'Write "{remedy}" or leave it out.', certain=True)
    assert doubts(pattern) is None


def test_a_list_of_dag_ids_is_a_mistake_whatever_stands_between_them():
    """No dag_id has such a sign."""
    remedy = 'Write a route for each, "a", "b", or "a[|]b" for the sign itself.'
    assert doubts("a|b", dag_id=True) == Doubt("whose | stands for itself", remedy, certain=True)


def test_cost_grows_with_the_number_of_routes_and_not_with_its_square():
    """A file of thousands is checked on the scheduler's thread."""

    def cost(number):
        patterns = [(f"*{n}a{n}-*", None) for n in range(number)]
        return lines_executed(lambda: list(shadowed(patterns)))

    assert cost(400) < 2.5 * cost(200)
