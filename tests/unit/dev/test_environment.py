# SPDX-License-Identifier: Apache-2.0
"""When an environment is made, and of which name."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from devkit import environment

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


def test_the_readme_says_how_much_disk_an_environment_takes() -> None:
    said = f"the checkout takes {environment.ENVIRONMENT_DISK / environment.GIB:.1f} GB"
    assert said in (environment.REPO / "README.md").read_text()


def test_an_environment_takes_as_much_disk_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPATCH_DEV_HOME")
    folders = [Path(sys.prefix), *environment.home().glob("uv-[0-9]*")]
    if Path(sys.prefix).parent != environment.home():
        pytest.skip("these tests do not run in an environment of ./dev/env")
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    taken = sum(file.lstat().st_blocks * 512 for file in files)
    assert taken == pytest.approx(environment.ENVIRONMENT_DISK, rel=0.2)


def test_too_little_disk_is_said_before_anything_is_installed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "ENVIRONMENT_DISK", 2.0**60)
    with pytest.raises(environment.DevError, match=r"GB of disk in .* are free\. Set DISPATCH_DEV_HOME"):
        environment.ensure(VERSION)
    assert not environment.folder_of(VERSION).exists()


def test_what_nobody_reads_any_more_keeps_nothing_from_being_stopped() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(environment.DEV)!r})
from devkit import environment
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
