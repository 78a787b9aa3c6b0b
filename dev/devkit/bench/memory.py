# SPDX-License-Identifier: Apache-2.0
"""How much memory a process takes."""

from __future__ import annotations

from pathlib import Path


def fields(pid: int) -> dict[str, int]:
    """Bytes, by the names of ``/proc/PID/smaps_rollup``: ``Pss`` counts each shared page once among its sharers."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)}


def pss(pid: int) -> int:
    return fields(pid)["Pss"]
