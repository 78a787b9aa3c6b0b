# SPDX-License-Identifier: Apache-2.0
"""Types of arguments of the commands: each refuses a text that is none of its kind, for argparse."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import suppress


def some(text: str) -> str:
    """Refuse an empty argument, as an unset variable of a shell leaves it, and what is no text."""
    if not text:
        raise ArgumentTypeError("is empty")
    return valid_text(text)


def valid_text(text: str) -> str:
    """Refuse bytes that are no text in the encoding of the terminal: no database takes them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"{text!r} is not text in UTF-8") from None
    return text


_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(text: str) -> float:
    """Of a duration such as ``90s``, ``30m``, ``2h`` or ``1d``; a bare number is in seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        found = float(number) * _UNITS[unit]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no duration, such as 90s, 30m, 2h or 1d") from None
    if not 0 < found < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no time at all")
    return found


def whole(least: int) -> Callable[[str], int]:
    """Of whole numbers from that on, as large as a column of the database has them."""

    def number(text: str) -> int:
        with suppress(ValueError):
            if least <= (found := int(text)) < 2**31:
                return found
        raise ArgumentTypeError(f"{text!r} is no whole number from {least} to {2**31 - 1}")

    return number
