# SPDX-License-Identifier: Apache-2.0
"""A page as the steps of a reader."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMENT = re.compile(
    r"\s*<!--\s*(?P<verb>run|output|file|not run|example|wait)(?::\s*(?P<detail>.*?))?\s*-->\s*"
)
FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^`]*)")
NEEDS_DETAIL = ("file", "not run", "example", "wait")
TERMINAL = re.compile(r"terminal (\d+)")
UNTIL = re.compile(r"until (.+)")


class PageError(Exception):
    """The page cannot be followed, or what it says is not so; names the page and the line."""


@dataclass(frozen=True)
class Step:
    """A reader's step for one block.

    :param place: page and line, for messages.
    :param verb: one of those in the package's docstring.
    :param text: the block without its fence and indentation; of ``wait``, the command.
    :param detail: what the comment says after the verb and a colon.
    """

    place: str
    verb: str
    text: str
    detail: str = ""

    @property
    def terminal(self) -> int:
        return next((int(match[1]) for match in self._matches(TERMINAL)), 1)

    @property
    def until(self) -> str | None:
        return next((match[1] for match in self._matches(UNTIL)), None)

    def _matches(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        return filter(None, (pattern.fullmatch(part.strip()) for part in self.detail.split(";")))


def steps_of(page: Path) -> list[Step]:
    """All steps of a page in order; raises PageError for a block without a comment, and for a comment that says
    nothing."""
    return list(_steps(page.name, page.read_text().splitlines()))


def _steps(name: str, lines: list[str]) -> Iterator[Step]:
    comment: re.Match[str] | None = None
    number = 0
    while number < len(lines):
        place = f"{name}:{number + 1}"
        fence = FENCE.fullmatch(lines[number])
        if fence:
            end = _end_of_block(place, lines, number, fence)
            yield _block(place, comment, lines[number + 1 : end])
            comment, number = None, end
        elif found := COMMENT.fullmatch(lines[number]):
            if found["verb"] == "wait":
                yield _checked(Step(place, "wait", found["detail"] or "", found["detail"] or ""))
            else:
                comment = found
        elif lines[number].strip():
            _refuse_lonely(place, comment)
        number += 1
    _refuse_lonely(f"{name}:{number}", comment)


def _end_of_block(place: str, lines: list[str], start: int, fence: re.Match[str]) -> int:
    for number in range(start + 1, len(lines)):
        if lines[number].strip() == fence["fence"]:
            return number
    raise PageError(f"{place}: the block is never closed")


def _block(place: str, comment: re.Match[str] | None, lines: list[str]) -> Step:
    if comment is None:
        raise PageError(f"{place}: no comment such as <!-- run --> says what a reader does with this block")
    text = textwrap.dedent("\n".join(lines)) + "\n"
    return _checked(Step(place, comment["verb"], text, comment["detail"] or ""))


def _checked(step: Step) -> Step:
    if step.verb in NEEDS_DETAIL and not step.detail:
        raise PageError(f"{step.place}: <!-- {step.verb} --> needs a colon and more")
    known = sum(1 for pattern in (TERMINAL, UNTIL) for _ in step._matches(pattern))
    if step.verb == "run" and step.detail and known != len(step.detail.split(";")):
        raise PageError(
            f"{step.place}: <!-- run: {step.detail} --> says neither `terminal N` nor `until TEXT`"
        )
    return step


def _refuse_lonely(place: str, comment: re.Match[str] | None) -> None:
    if comment is not None:
        raise PageError(f"{place}: no block follows {comment[0].strip()}")
