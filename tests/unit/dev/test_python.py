# SPDX-License-Identifier: Apache-2.0
"""Which Python the commands of dev/ run with, and how one is brought where there is none. All programs are fakes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

DEV = Path(__file__).parents[3] / "dev"
TOOLS = ("sh", "dirname", "mkdir", "cat", "chmod")
# Answers the question for its version as a Python of that version would; says with what it was called otherwise.
PYTHON = """#!/bin/sh
[ "$1" = -c ] && {{ [ {venv} = 0 ] || case "$2" in *venv*) exit 1;; esac
    exec "{real}" -c "import sys; sys.version_info = {version}; $2"; }}
[ "$1 $2" = "-m venv" ] && {{ for last; do :; done; mkdir -p "$last/bin"; cat "$0" >"$last/bin/python"
    chmod +x "$last/bin/python"; exit {venv}; }}
[ "$1 $2" = "-m pip" ] && {{ [ -e "{uv}" ] || exit 1; cat "{uv}" >"${{0%/*}}/uv"; chmod +x "${{0%/*}}/uv"; exit; }}
echo "{name} ran $*${{PYTHONDONTWRITEBYTECODE+ and keeps no bytecode}}"
"""
# Finds nothing until it has installed; then what it has installed.
UV = """#!/bin/sh
echo "uv $* into $UV_PYTHON_INSTALL_DIR" >>"{calls}"
folder="$UV_PYTHON_INSTALL_DIR/cpython/bin"
case "$2" in
    find) [ -x "$folder/python3" ] && echo "$folder/python3" ;;
    install) mkdir -p "$folder" && cat "{brought}" >"$folder/python3" && chmod +x "$folder/python3" ;;
esac
"""


class Machine:
    """A PATH with a few tools, and the Pythons that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.home = folder / "dev home"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def program(self, path: Path, text: str) -> Path:
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, name: str, version: tuple[int, int], venv: int = 0) -> Path:
        """:param venv: the exit code of its module venv"""
        wheel = self.folder / "uv-of-the-wheel"
        text = PYTHON.format(real=sys.executable, version=version, name=name, venv=venv, uv=wheel)
        return self.program(self.bin / name, text)

    def uv(self, path: Path, brings: tuple[int, int] = (3, 11)) -> Path:
        brought = self.python("brought", brings).rename(self.folder / "brought")
        return self.program(path, UV.format(calls=self.folder / "calls", brought=brought))

    def calls(self) -> Sequence[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.bin), "HOME": str(self.folder), "DISPATCH_DEV_HOME": str(self.home), **env}
        command = [str(DEV / "_python"), "script.py", "an argument"]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("name", "minor"), [("python3.11", 11), ("python3.12", 12), ("python3", 13), ("python", 12)]
)
def test_any_supported_python_on_path_will_do(machine: Machine, name: str, minor: int) -> None:
    machine.python(name, (3, minor))
    assert machine.run().stdout == f"{name} ran script.py an argument\n"


@pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 14)])
def test_a_python_that_is_too_old_or_too_new_is_passed_over(
    machine: Machine, version: tuple[int, int]
) -> None:
    machine.python("python3", version)
    machine.python("python", (3, 12))
    assert machine.run().stdout == "python ran script.py an argument\n"


def test_a_python_that_can_make_environments_comes_before_one_that_cannot(machine: Machine) -> None:
    machine.python("python3.11", (3, 11), venv=1)
    assert machine.run().stdout == "python3.11 ran script.py an argument\n"
    machine.python("python", (3, 13))
    assert machine.run().stdout == "python ran script.py an argument\n"


def test_the_python_that_the_variable_names_is_the_one(machine: Machine) -> None:
    machine.python("python3", (3, 11))
    machine.python("mine", (3, 13))
    assert machine.run(DISPATCH_DEV_PYTHON="mine").stdout == "mine ran script.py an argument\n"


def test_an_unfit_python_in_the_variable_is_refused_and_not_replaced(machine: Machine) -> None:
    machine.python("python3", (3, 11))
    machine.python("mine", (3, 9))
    done = machine.run(DISPATCH_DEV_PYTHON="mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert "DISPATCH_DEV_PYTHON is 'mine'" in done.stderr


def test_bytecode_is_kept_where_the_machine_forbids_it(machine: Machine) -> None:
    machine.python("python3", (3, 11))
    assert machine.run(PYTHONDONTWRITEBYTECODE="1").stdout == "python3 ran script.py an argument\n"


def test_uv_on_path_brings_a_python_once(machine: Machine) -> None:
    machine.uv(machine.bin / "uv")
    for _ in range(2):
        done = machine.run()
        assert done.stdout == "brought ran script.py an argument\n", done.stderr
    assert [call for call in machine.calls() if " install " in call] == [
        f"uv python install 3.11 into {machine.home}/python"
    ]


def test_pip_of_an_old_python_brings_uv(machine: Machine) -> None:
    machine.python("python3", (3, 9))
    machine.uv(machine.folder / "uv-of-the-wheel")
    assert machine.run().stdout == "brought ran script.py an argument\n"
    assert not (machine.bin / "uv").exists()


@pytest.mark.parametrize(("python", "venv"), [(None, 0), ((3, 9), 1), ((3, 9), 0)])
def test_without_python_and_uv_it_says_what_was_tried_and_what_helps(
    machine: Machine, python: tuple[int, int] | None, venv: int
) -> None:
    if python:
        machine.python("python3", python, venv)
    done = machine.run()
    assert (done.returncode, done.stdout) == (2, "")
    for words in ("`pip install uv` with another Python 3", "python3-venv", "DISPATCH_DEV_PYTHON"):
        assert words in done.stderr


def test_a_download_that_fails_is_said_with_what_uv_answered(machine: Machine) -> None:
    machine.program(machine.bin / "uv", "#!/bin/sh\necho no route to host >&2\nexit 1\n")
    done = machine.run()
    assert done.returncode == 2
    assert "no route to host" in done.stderr
    assert "UV_PYTHON_INSTALL_MIRROR" in done.stderr


def test_every_command_starts_through_it() -> None:
    commands = [path for path in DEV.iterdir() if path.is_file() and os.access(path, os.X_OK)]
    others = {path.name for path in commands if "_python" not in path.read_text()}
    assert others <= {"kube-server", "check_resolves"}  # ask ./dev/env
