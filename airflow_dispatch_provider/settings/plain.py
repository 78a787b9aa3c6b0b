# SPDX-License-Identifier: Apache-2.0
"""Values of a file that JSON cannot hold: found before anything is validated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from math import isfinite
from typing import Any

from airflow_dispatch_provider.settings.problems import Steps

MAX_DEPTH = 8
"""The deepest that a right configuration goes is 5: ``backends``, name, ``config``, section, option."""

Report = Callable[[Steps, str, str], None]
"""Takes where (steps from the top), what was found, and a remedy."""


class TooDeepError(ValueError):
    """The data is nested deeper than any right configuration, or contains itself."""


def plain(value: Any, steps: Steps, report: Report) -> Any:
    """``value`` with nothing in it but what JSON has; a stand-in of the nearest kind is left at every spot
    that is reported. Raises TooDeepError."""
    if len(steps) > MAX_DEPTH:
        raise TooDeepError
    if isinstance(value, dict):
        return {
            _key(key, steps, report): plain(item, [*steps, str(key)], report) for key, item in value.items()
        }
    if isinstance(value, list):
        return [plain(item, [*steps, index], report) for index, item in enumerate(value)]
    return value if value is None or isinstance(value, bool) else _scalar(value, steps, report)


def _key(key: Any, steps: Steps, report: Report) -> str:
    if not isinstance(key, str):
        report([*steps, str(key)], "is a key that is not text.", "Put it in quotes.")
    return _text(str(key), steps, report)


def _scalar(value: Any, steps: Steps, report: Report) -> str | int | float:
    if isinstance(value, str):
        return _text(value, steps, report)
    if isinstance(value, float):
        if isfinite(value):
            return value
        report(steps, f"found {value}, which is no number that can be used.", "Give an ordinary number.")
        return 1.0
    if isinstance(value, int):
        if abs(value) < 2**63:
            return value
        report(steps, "found a number with too many digits.", "Give a smaller one, or text in quotes.")
        return 1
    kind = "a date" if isinstance(value, date) else f"a value of type {type(value).__name__}"
    report(steps, f"found {kind}, which is not text.", "Put it in quotes.")
    return str(value)


def _text(value: str, steps: Steps, report: Report) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        report(steps, "found text with half a character (a lone surrogate).", "Write the whole character.")
        return value.encode(errors="replace").decode()
    return value
