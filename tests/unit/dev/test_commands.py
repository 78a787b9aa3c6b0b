# SPDX-License-Identifier: Apache-2.0
"""The commands in ./dev, and the modules that they run."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module

import pytest

from devkit.environment import DEV

COMMANDS: Mapping[str, str] = runpy.run_path(str(DEV / "__main__.py"))["COMMANDS"]
INSIDE = {"check_resolves", "kube-server", "node-agent"}
"""These start in an environment of ./dev/env."""


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_has_a_main(name: str) -> None:
    assert callable(import_module(f"devkit.{COMMANDS[name]}").main)


def test_each_program_runs_the_command_of_its_name() -> None:
    programs = {path.name for path in DEV.iterdir() if path.is_file() and os.access(path, os.X_OK)} - {
        "_python"
    }
    assert programs == set(COMMANDS) - {"node-agent"}
    for name in programs:
        assert f'"$here" {name} "$@"' in (DEV / name).read_text()


def test_a_python_in_which_nothing_is_installed_loads_all_commands_that_make_environments() -> None:
    modules = [f"devkit.{module}" for name, module in COMMANDS.items() if name not in INSIDE]
    script = f"import sys; sys.path.insert(0, {str(DEV)!r})\nfor name in {modules!r}: __import__(name)"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True)
