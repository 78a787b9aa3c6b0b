# SPDX-License-Identifier: Apache-2.0
"""A hook of mkdocs: names in the text of a page break after ``_``, ``.``, ``/`` and the like, and long ones before a
capital; nowhere else."""

from __future__ import annotations

import re

_BLOCK_OR_CODE = re.compile(r"<pre\b.*?</pre>|<code>(.*?)</code>", re.DOTALL)
_PART = re.compile(r"[^\s_./,=:]*[_./,=:]+|[^\s_./,=:]+")
_NAME = re.compile(r"\S+")
_LONG = 20
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def on_page_content(html: str, **_: object) -> str:
    """Put each part of a name in an element that site.css keeps on one line."""
    return _BLOCK_OR_CODE.sub(_in_parts, html)


def _in_parts(found: re.Match[str]) -> str:
    if found[1] is None:
        return found[0]
    return f"<code>{_NAME.sub(_name_in_parts, found[1])}</code>"


def _name_in_parts(found: re.Match[str]) -> str:
    parts = (part for text in _PART.findall(found[0]) for part in _humps(text))
    return "<wbr>".join(f'<span class="part">{part}</span>' for part in parts)


def _humps(text: str) -> list[str]:
    return _HUMP.split(text) if len(text) > _LONG else [text]
