# SPDX-License-Identifier: Apache-2.0
"""Words of others, made fit for a log line or a task's event log."""

from __future__ import annotations

import re

MAX_LENGTH = 500
"""Characters of a text that somebody else has written."""

# A pod's arguments hold its task's token, and servers and exceptions repeat what they do not like.
_TOKEN = re.compile(r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]+")


def one_line(text: str) -> str:
    """The text in one line of at most ``MAX_LENGTH`` characters, tokens masked."""
    text = " ".join(_TOKEN.sub("***", text).split())
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


def describe(error: BaseException) -> str:
    """An exception in one line: its type, and its text where it has one."""
    name, text = type(error).__name__, str(error)
    return one_line(f"{name}: {text}" if text else name)
