# SPDX-License-Identifier: Apache-2.0
"""Requirements of ./dev/demo that this machine does or does not meet. Runs before anything is installed."""

from __future__ import annotations

import math
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devkit.environment import ENVIRONMENT_DISK, GIB, DevError, disk_problem, environment_exists, say
from devkit.programs import kube_build


@dataclass(frozen=True)
class Needs:
    """Measured, and rounded up: 1.4, 2.6 (36 tasks each) and 2.1 GB (15 tasks) of memory, up to 0.25 GB of disk.

    :ivar memory: of all processes together, bytes
    :ivar disk: of the temporary folder, bytes
    """

    memory: float
    disk: float


NEEDS = {
    None: Needs(2.0 * GIB, 0.2 * GIB),
    "celery": Needs(3.0 * GIB, 0.2 * GIB),
    "kubernetes": Needs(2.5 * GIB, 0.5 * GIB),
}


def announce(extra: str | None, airflow_version: str) -> None:
    """Say what the demo needs, and how long it takes.

    :param extra: ``celery``, ``kubernetes`` or None
    """
    needs = NEEDS[extra]
    said = [f"Needs {needs.memory / GIB:.1f} GB of memory and one to three minutes"]
    if not environment_exists(airflow_version):
        said.append(f"this first time also {ENVIRONMENT_DISK / GIB:.1f} GB of disk for Airflow")
    say(f"{'; '.join(said)}.")
    if extra == "kubernetes" and (go := kube_build.builder()):
        say(f"Builds the Kubernetes API server first, with {go}: {kube_build.COST}.")


def check(extra: str | None, port: int | None) -> None:
    """Raise DevError with everything that is missing."""
    problems = [_memory_problem(NEEDS[extra].memory, available_memory()), _disk_problem(NEEDS[extra].disk)]
    if port is not None:
        problems.append(_port_problem(port))
    if extra == "kubernetes":
        problems.append(kube_build.problem())
    if found := [problem for problem in problems if problem]:
        raise DevError("the demo cannot run here:\n" + "\n".join(f"  - {problem}" for problem in found))


def available_memory(proc: Path = Path("/proc"), group: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that new processes can have, swap included, within the limit of the container if there is one."""
    if not (proc / "meminfo").exists():
        return math.inf  # unknown: not Linux
    fields = _fields(proc / "meminfo")
    machine = 1024 * (fields["MemAvailable"] + fields["SwapFree"])
    limit = group / "memory.max"
    if not limit.exists() or not (text := limit.read_text().strip()).isdecimal():
        return machine
    used = int((group / "memory.current").read_text()) - _fields(group / "memory.stat")["file"]
    return min(machine, int(text) - used)


def _fields(path: Path) -> dict[str, int]:
    """Of a file with a name and a number on each line."""
    lines = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}


def _memory_problem(needed: float, available: float) -> str | None:
    if available >= needed:
        return None
    return (
        f"it needs {needed / GIB:.1f} GB of memory, and {available / GIB:.1f} GB are free. Stop other programs, "
        "or give the machine or container more."
    )


def _disk_problem(needed: float) -> str | None:
    folder = Path(tempfile.gettempdir())
    return disk_problem(folder, needed, "it", "Set TMPDIR to a folder on a larger disk, or make room.")


def _port_problem(port: int) -> str | None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            return f"port {port} of 127.0.0.1 cannot be used: {error.strerror}. Give --port another, or leave it out."
    return None
