# SPDX-License-Identifier: Apache-2.0
"""When an environment is made, and of which name."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "dev" / "lib"))
import environment

pytestmark = pytest.mark.once

VERSION = environment.DEFAULT_AIRFLOW_VERSION


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISPATCH_DEV_HOME", str(tmp_path))
    return tmp_path


def test_each_python_and_each_checkout_has_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = environment.folder_of(VERSION)
    assert f"-py{sys.version_info.major}.{sys.version_info.minor}-" in mine.name
    monkeypatch.setattr(environment, "PYTHON", "3.99")
    other = environment.folder_of(VERSION)
    monkeypatch.setattr(environment, "REPO", Path("/elsewhere"))
    assert len({mine, other, environment.folder_of(VERSION)}) == 3


def test_an_environment_whose_python_was_removed_is_made_again(home: Path) -> None:
    folder, python = environment.folder_of(VERSION), home / "python"
    python.touch()
    (folder / "bin").mkdir(parents=True)
    environment.python_of(folder).symlink_to(python)
    assert not environment.environment_exists(VERSION)  # interrupted
    (folder / "complete.stamp").touch()
    assert environment.environment_exists(VERSION)
    python.unlink()
    assert not environment.environment_exists(VERSION)


def test_too_little_disk_is_said_before_anything_is_installed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_ENVIRONMENT_NEEDS", 2.0**60)
    with pytest.raises(environment.DevError, match=r"GB of disk in .* are free\. Set DISPATCH_DEV_HOME"):
        environment.ensure(VERSION)
    assert not environment.folder_of(VERSION).exists()


def test_what_nobody_reads_any_more_keeps_nothing_from_being_stopped() -> None:
    lib = str(Path(environment.__file__).parent)
    script = f"""
import sys
sys.path.insert(0, {lib!r})
import environment
sys.stdin.read()
environment.say("x")
print("stopped")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert process.stdin
    assert process.stdout
    process.stderr.close()
    process.stdin.close()
    with process.stdout as output:
        assert output.read() == "stopped\n"
    process.wait()


def test_uv_on_path_serves_a_python_that_cannot_make_environments(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "bin").mkdir()
    (home / "bin" / "uv").write_text(f'#!/bin/sh\necho "$@" >"{home}/calls"\n')
    (home / "bin" / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(home / "bin"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    environment.run_uv(["version"])
    assert (home / "calls").read_text() == "version\n"
