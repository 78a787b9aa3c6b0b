# SPDX-License-Identifier: Apache-2.0
"""A fake machine to build Go programs on."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

# Notes its arguments, and writes the file that `-o` names.
_GO = """#!/bin/sh
echo "$@" >> "{calls}"
[ "$1" = env ] && {{ echo go1.26; exit; }}
while [ "$1" != -o ]; do shift; done
: > "$2"
"""


class GoMachine:
    """A machine with no program on PATH, nothing built, and sources of its own.

    :param module: the one in devkit.programs that builds
    :param given: the variable that names a program to use instead; not set here
    """

    def __init__(self, folder: Path, module: ModuleType, given: str, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.sources = folder, folder / "sources"
        self._calls, self._go = folder / "calls", folder / "bin" / "go"
        self._go.parent.mkdir()
        shutil.copytree(module.SOURCES, self.sources)
        patch.setenv("PATH", str(self._go.parent))
        patch.setenv("DISPATCH_DEV_HOME", str(folder / "home"))
        patch.delenv(given, raising=False)
        patch.setattr(module, "SOURCES", self.sources)

    def install_go(self, script: str = _GO) -> None:
        self._go.write_text(script.format(calls=self._calls))
        self._go.chmod(0o755)

    @property
    def calls(self) -> str:
        """Arguments of Go, a line for each call."""
        return self._calls.read_text()

    @property
    def builds(self) -> int:
        """How often something was built."""
        return sum(line.startswith("build ") for line in self.calls.splitlines())
