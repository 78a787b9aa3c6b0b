# SPDX-License-Identifier: Apache-2.0
"""A hook of mkdocs: names in the text of a page break after ``_``, ``.``, ``/`` and the like, and long ones before a
capital; nowhere else."""

from __future__ import annotations

import re

_BLOCK_OR_CODE = re.compile(r"<pre\b.*?</pre>|<code>(.*?)</code>", re.DOTALL)
_PART = re.compile(r"\s+|[^\s_./,=:]*[_./,=:]+|[^\s_./,=:]+")
_LONG = 20
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def on_page_content(html: str, **_: object) -> str:
    """Put each part of a name in an element that site.css keeps on one line."""
    return _BLOCK_OR_CODE.sub(_in_parts, html)


def _in_parts(found: re.Match[str]) -> str:
    if found[1] is None:
        return found[0]
    parts = (part for name in _PART.findall(found[1]) for part in _humps(name))
    return f"<code>{'<wbr>'.join(map(_kept, parts))}</code>"


def _humps(name: str) -> list[str]:
    return _HUMP.split(name) if len(name) > _LONG else [name]


def _kept(part: str) -> str:
    return part if part.isspace() else f'<span class="part">{part}</span>'
