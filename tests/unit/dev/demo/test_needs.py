# SPDX-License-Identifier: Apache-2.0
"""./dev/demo: what it asks of a machine before it starts."""

from __future__ import annotations

import math
import socket
import sys
from pathlib import Path

import pytest

from devkit import environment
from devkit.demo import needs as demo_needs
from devkit.environment import DevError
from devkit.programs import kube_build

pytestmark = pytest.mark.once

MIB = 2**20


def memory(folder: Path, limit: str | None = None) -> float:
    """Of a machine with 300 MiB and a container with that limit, which uses 100 MiB, 60 of these for files."""
    proc, group = folder / "proc", folder / "group"
    proc.mkdir()
    group.mkdir()
    (proc / "meminfo").write_text("MemTotal: 409600 kB\nMemAvailable: 204800 kB\nSwapFree: 102400 kB\n")
    if limit:
        (group / "memory.max").write_text(limit)
        (group / "memory.current").write_text(f"{100 * MIB}\n")
        (group / "memory.stat").write_text(f"anon 1\nfile {60 * MIB}\n")
    return demo_needs.available_memory(proc, group) / MIB


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, 300), ("max\n", 300), (f"{90 * MIB}\n", 50), (f"{900 * MIB}\n", 300)]
)
def test_memory_is_what_machine_and_container_leave(
    tmp_path: Path, limit: str | None, expected: float
) -> None:
    assert memory(tmp_path, limit) == expected


def test_where_free_memory_is_unknown_nothing_is_refused(tmp_path: Path) -> None:
    assert demo_needs.available_memory(tmp_path, tmp_path) == math.inf


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(kube_build.ASSETS, raising=False)
    monkeypatch.setitem(demo_needs.NEEDS, "kubernetes", demo_needs.Needs(memory=2**60, disk=2**60))
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(DevError) as raised:
        demo_needs.check("kubernetes", listener.getsockname()[1])
    for words in ("GB of memory", "GB of disk", "Set TMPDIR", "Give --port another", "no `go` on PATH"):
        assert words in str(raised.value)


def test_an_ordinary_machine_has_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(demo_needs.NEEDS, None, demo_needs.Needs(memory=1, disk=1))
    demo_needs.check(None, None)


@pytest.mark.parametrize("there", [False, True])
def test_the_cost_of_an_environment_is_said_where_there_is_none_yet(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPATCH_DEV_HOME", str(tmp_path))
    if there:
        folder = environment.folder_of(environment.DEFAULT_AIRFLOW_VERSION)
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)
        (folder / "complete.stamp").touch()
    demo_needs.announce(None, environment.DEFAULT_AIRFLOW_VERSION)
    assert ("this first time" in capsys.readouterr().err) is not there
