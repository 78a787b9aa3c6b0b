# SPDX-License-Identifier: Apache-2.0
"""Patterns of routes: their meaning, and whether that can have been intended. Pure.

``*``, ``?`` and ``[...]`` mean something, as in Python's ``fnmatch``; every other character stands for itself, and so
does each of them in brackets: ``[*]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import count

MAX_LENGTH = 256
"""Airflow's columns for queues and dag_ids hold about as much."""

_BRACKET = re.compile(r"\[!?+(?:\][^\]]*|[^\]]++)\]")
_TOKEN = re.compile(f"{_BRACKET.pattern}|.", re.DOTALL)
_COMPARED = 50
"""Earlier routes with the same beginning that a route is compared with."""

_STEPS = 50_000
"""Comparisons of routes and of their parts, however long the file is: about 0.1 s of the scheduler's thread."""

_NO_ALTERNATIVES = "whose alternatives are taken literally"
_REGEX_CLASSES = {r"\d": "[0-9]", r"\w": "[A-Za-z0-9_]", r"\s": "[ ]"}
_ALTERNATIVES = re.compile(r"\{([^{}]*,[^{}]*)\}|\(([^()]*\|[^()]*)\)")
_NOT_IN_A_DAG_ID = re.compile(r"[^\w.\-]")


@dataclass(frozen=True)
class Doubt:
    """Why a pattern hardly means what it says."""

    found: str
    """The rest of "found the pattern ...,"."""

    remedy: str
    certain: bool = True
    """False: it might be meant after all."""


def is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def doubts(pattern: str, *, dag_id: bool = False) -> Doubt | None:
    """The first reason to doubt a pattern.

    :param dag_id: it is for dag_ids, which have few characters; queues may be called anything
    """
    if len(pattern) > MAX_LENGTH:
        return Doubt(f"which is longer than a name can be ({MAX_LENGTH} characters)", "Write a shorter one.")
    checks = (*_CERTAIN, _no_dag_id, *_PERHAPS) if dag_id else (*_CERTAIN, *_PERHAPS)
    return next((doubt for check in checks if (doubt := check(pattern))), None)


def tokens(pattern: str) -> list[str]:
    """Its parts: ``*``, ``?``, a bracket as a whole, or one character. A bracket that is not closed is a character."""
    return _TOKEN.findall(pattern)


def covers(general: str, special: str) -> bool:
    """Whether ``general`` matches everything that ``special`` matches. False where that is so, but hard to see."""
    if max(len(general), len(special)) > MAX_LENGTH:
        return False
    return _covers(tokens(general), tokens(special), count())


def _covers(wide: Sequence[str], narrow: Sequence[str], steps: Iterator[int]) -> bool:
    """Each ``*`` of ``wide`` takes as little as it can, and more where the rest does not fit: the last one alone has
    to be tried again.

    :param steps: one is taken for each token compared
    """
    i = j = 0
    star = after = -1
    while j < len(narrow):
        next(steps)
        if i < len(wide) and wide[i] == "*":
            star, after = i, j
            i += 1
        elif i < len(wide) and _token_covers(wide[i], narrow[j]):
            i, j = i + 1, j + 1
        elif star >= 0:
            after += 1
            i, j = star + 1, after
        else:
            return False
    return all(token == "*" for token in wide[i:])


def literal_start(pattern: str) -> str:
    """The beginning of every name that it matches."""
    start = []
    for token in tokens(pattern):
        if len(token) > 1 or token in "*?":
            break
        start.append(token)
    return "".join(start)


def _token_covers(wide: str, narrow: str) -> bool:
    if narrow == "*":
        return False
    if wide in ("?", narrow):
        return True
    return len(wide) > 1 and len(narrow) == 1 and narrow != "?" and fnmatchcase(narrow, wide)


def _outside_brackets(pattern: str) -> str:
    """With every bracket blanked out, at the same positions."""
    return _BRACKET.sub(lambda bracket: "\0" * len(bracket[0]), pattern)


def _in_brackets(pattern: str, signs: str) -> str:
    """The pattern that takes these signs for themselves."""
    return "".join(f"[{token}]" if token in signs else token for token in tokens(pattern))


def _blank_ends(pattern: str) -> Doubt | None:
    if pattern == pattern.strip():
        return None
    if not pattern.strip():
        return Doubt("which is nothing but blanks", 'Write a name or a glob, e.g. "gpu-*".')
    return Doubt("which begins or ends with a blank", f"Write {_quoted(pattern.strip())}.")


def _unclosed(pattern: str) -> Doubt | None:
    at = _outside_brackets(pattern).find("[")
    if at < 0:
        return None
    itself = pattern[:at] + "[[]" + pattern[at + 1 :]
    closed = f"{pattern}]"
    if len(tokens(closed)) < len(tokens(pattern)) and pattern[at + 1 :].strip("!]"):
        return Doubt(
            "whose bracket is not closed",
            f"Write {_quoted(closed)}, or {_quoted(itself)} for the bracket itself.",
        )
    return Doubt(
        "whose bracket is not closed", f"Write {_quoted(itself)} for the bracket itself, or leave it out."
    )


def _empty_set(pattern: str) -> Doubt | None:
    for token in _BRACKET.findall(pattern):
        if (ends := re.search(r"(.)-(.)", token[1:-1])) and ends[1] > ends[2]:
            right = token.replace(ends[0], f"{ends[2]}-{ends[1]}")
            return Doubt(
                f"whose range {ends[0]} is empty", f"Write {_quoted(pattern.replace(token, right))}."
            )
    return None


def _alternatives(pattern: str) -> Doubt | None:
    found = _ALTERNATIVES.search(_outside_brackets(pattern))
    if not found:
        return None
    sign = "," if found[1] is not None else "|"
    start, end = found.span()
    words = pattern[start + 1 : end - 1].split(sign)
    before, after = pattern[:start].lstrip("^"), pattern[end:].rstrip("$")
    itself = f"or {_quoted(_in_brackets(pattern, '{(^$,'))} for the sign itself"
    if all(len(word) == 1 and word not in "]!-^" for word in words):
        return Doubt(
            _NO_ALTERNATIVES, f"Write {_quoted(before + '[' + ''.join(words) + ']' + after)}, {itself}."
        )
    each = ", ".join(_quoted(before + word + after) for word in words)
    return Doubt(_NO_ALTERNATIVES, f"Write a route for each, {each}, {itself}.")


def _regex(pattern: str) -> Doubt | None:
    plain = _outside_brackets(pattern)
    anchored = plain.startswith("^") or plain.endswith("$")
    if not anchored and "\\" not in plain and not re.search(r"\0[+{]", plain):
        return None
    itself = _in_brackets(pattern, "^$\\+{.")
    said = "which is a regular expression, not a glob"
    if (glob := _glob_of(pattern)) is not None:
        return Doubt(said, f"Write {_quoted(glob)}, or {_quoted(itself)} for the signs themselves.")
    return Doubt(said, f"Write a glob with * and ?, or {_quoted(itself)} for the signs themselves.")


def _glob_of(expression: str) -> str | None:
    """A glob that matches at least what a simple regular expression does; None where it is not simple."""
    text = expression.removeprefix("^").removesuffix("$")
    for sign, bracket in _REGEX_CLASSES.items():
        text = text.replace(sign, bracket)
    text = re.sub(r"\\([*?\[])", r"[\1]", text)
    text = re.sub(r"\\([^A-Za-z0-9])", r"\1", text)
    text = re.sub(r"(\[[^\]]*\]|\.)(\*|\+|\{[0-9,]*\})", "*", text)
    return None if re.search(r"[\\^$(){}|+]", text) or not text else text


def _placeholder(pattern: str) -> Doubt | None:
    plain = _outside_brackets(pattern)
    if "${" not in plain and "{{" not in plain:
        return None
    itself = _quoted(_in_brackets(pattern, "${"))
    return Doubt(
        "in which nothing is filled in", f"Write the name itself, or {itself} for the signs themselves."
    )


def _list(pattern: str) -> Doubt | None:
    return _separated(pattern, ",", "comma")


def _perhaps_list(pattern: str) -> Doubt | None:
    return _separated(pattern, "|", "sign", False) or _separated(pattern, ";", "sign", False)


def _separated(pattern: str, sign: str, word: str, certain: bool = True) -> Doubt | None:
    each = [_quoted(name) for part in pattern.split(sign) if (name := part.strip())]
    if sign not in _outside_brackets(pattern) or not each:
        return None
    itself = _quoted(_in_brackets(pattern, sign))
    remedy = f"Write a route for each, {', '.join(each)}, or {itself} for the {word} itself."
    return Doubt("which is a list" if certain else f"whose {sign} stands for itself", remedy, certain)


def _no_dag_id(pattern: str) -> Doubt | None:
    plain = re.sub(r"[*?\0]", "", _outside_brackets(pattern))
    sign = _NOT_IN_A_DAG_ID.search(plain)
    if not sign:
        return None
    if listed := _perhaps_list(pattern):
        return replace(listed, certain=True)
    return Doubt(
        f"and no dag_id has a {_quoted(sign[0])}",
        f"Write {_quoted(pattern.replace(sign[0], '?'))} or leave it out.",
    )


def _perhaps_regex(pattern: str) -> Doubt | None:
    plain = _outside_brackets(pattern)
    # "team.*" may well be meant for queues such as "team.a".
    if not re.search(r"(^|[^\w\0])\.[*+?]|\.\+|\.\*\w", plain):
        return None
    glob = _quoted(re.sub(r"\.[*+?]", "*", pattern))
    return Doubt(
        "whose dot is a dot",
        f"Write {glob}, or {_quoted(_in_brackets(pattern, '.'))} for the dot itself.",
        False,
    )


def _perhaps_sql(pattern: str) -> Doubt | None:
    if "%" not in _outside_brackets(pattern):
        return None
    glob, itself = _quoted(pattern.replace("%", "*")), _quoted(_in_brackets(pattern, "%"))
    return Doubt("whose % is a percent sign", f"Write {glob}, or {itself} for the sign itself.", False)


def _doubled(pattern: str) -> Doubt | None:
    if "**" not in _outside_brackets(pattern):
        return None
    return Doubt("whose ** is no more than *", f"Write {_quoted(re.sub(r'[*]{2,}', '*', pattern))}.", False)


_CERTAIN = (_blank_ends, _unclosed, _empty_set, _placeholder, _alternatives, _regex, _list)
_PERHAPS = (_perhaps_list, _perhaps_regex, _perhaps_sql, _doubled)


def _quoted(text: str) -> str:
    """As it stands in JSON, and in YAML between double quotes."""
    return json.dumps(text, ensure_ascii=False)


def shadowed(patterns: Sequence[tuple[str, str | None]]) -> Iterator[tuple[int, int]]:
    """Routes that can never win, by queue and dag_id pattern in their order: the position of each, and of an earlier
    one that takes everything it would get. After ``_STEPS`` no more are looked for."""
    search = _Search(patterns)
    for position in range(len(patterns)):
        try:
            earlier = search.earlier(position)
        except _EnoughError:
            return
        if earlier is not None:
            yield position, earlier


class _EnoughError(Exception):
    """More would take too long."""


def _limited(steps: int) -> Iterator[int]:
    yield from range(steps)
    raise _EnoughError


class _Search:
    """For routes that take all that a later one would get."""

    def __init__(self, patterns: Sequence[tuple[str, str | None]]) -> None:
        self._patterns = patterns
        self._seen: dict[tuple[bool, bool, str], list[int]] = {}
        self._lengths: set[int] = set()
        """Of the beginnings in ``_seen``."""
        self._steps = _limited(_STEPS)
        self._parts = lru_cache(None)(_parts)

    def earlier(self, position: int) -> int | None:
        """
        :raises _EnoughError: there were too many steps
        """
        queue, dag_id = self._patterns[position]
        kind = (is_glob(queue), dag_id is not None)
        start = literal_start(queue) if kind[0] else queue
        found = next(
            (each for each in self._candidates(kind, start) if self._takes_all(each, position)), None
        )
        self._seen.setdefault((*kind, start), []).append(position)
        self._lengths.add(len(start))
        return found

    def _candidates(self, kind: tuple[bool, bool], start: str) -> list[int]:
        """Routes of the same rank that may take what a queue's route would get: an exact name wins over a glob, a
        dag_id over none. At most some of each beginning."""
        starts = [start[:end] for end in sorted(self._lengths) if end <= len(start)] if kind[0] else [start]
        found: list[int] = []
        for each in starts:
            next(self._steps)
            found += self._seen.get((*kind, each), ())[:_COMPARED]
        return found

    def _takes_all(self, earlier: int, position: int) -> bool:
        next(self._steps)
        pairs = zip(self._patterns[earlier], self._patterns[position], strict=True)
        return all(self._covers(general, special) for general, special in pairs)

    def _covers(self, general: str | None, special: str | None) -> bool:
        if general is None or special is None or general == special:
            return general == special
        if not is_glob(general) or max(len(general), len(special)) > MAX_LENGTH:
            return False
        wide, longest = self._parts(general)
        return longest in special and _covers(wide, self._parts(special)[0], self._steps)


def _parts(pattern: str) -> tuple[list[str], str]:
    """Its tokens, and its longest run of characters that stand for themselves."""
    found = tokens(pattern)
    runs = "".join(token if len(token) == 1 and token not in "*?" else "\0" for token in found)
    return found, max(runs.split("\0"), key=len)
