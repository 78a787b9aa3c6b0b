# SPDX-License-Identifier: Apache-2.0
"""Build a program from a Go module that is pinned in this repository, and keep it under the folder of the tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devkit.arguments import parser_of
from devkit.environment import DevError, digest_of, home, is_kept, kept, step

_OPTIONS = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-gcflags=all=-dwarf=false")
# The collector seldom runs: compilers are short-lived, and the memory is there.
_ENVIRON = {"CGO_ENABLED": "0", "GOWORK": "off", "GOGC": "400"}
GO_ADVICE = "install Go 1.25 or newer (https://go.dev/dl, or your package manager) and put it on PATH"


@dataclass(frozen=True)
class GoProgram:
    """A program, and where it is built from."""

    title: str
    """Its name in messages."""

    sources: Path
    """Folder with ``go.mod``, ``go.sum`` and maybe Go files: all that decides whether it is built anew."""

    package: str
    """Import path of its main package; ``.`` where that is in ``sources``."""

    binary: str
    """File name of the program; its folder begins with it."""

    variables: tuple[str, ...] = ()
    """Go variables that the linker sets, as ``package.name=value``."""

    links: tuple[str, ...] = ()
    """Names beside ``binary`` under which it can be called, too."""

    advice: str = GO_ADVICE
    """Advice where there is no Go."""

    cost: str = "minutes at first, seconds when Go's own cache has it"
    """Time and disk of the first build."""


def print_path(prog: str, description: str | None, build: Callable[[], Path]) -> int:
    """A command that has no options, builds a program where that is not kept yet, and prints its path."""
    parser_of(prog, description).parse_args()
    print(build())
    return 0


def problem(program: GoProgram) -> str | None:
    """Why ``built`` would fail at once."""
    return (
        None
        if shutil.which("go")
        else f"no `go` on PATH to build the {program.title} with: {program.advice}."
    )


def builder(program: GoProgram) -> str | None:
    """The Go that ``built`` would build with; None where there is nothing to build, or no Go."""
    go = shutil.which("go")
    return None if not go or is_kept(_folder(go, program)) else go


def built(program: GoProgram) -> Path:
    """The folder with the program; the first call takes minutes. Raises DevError with what to do."""
    go = shutil.which("go")
    if not go:
        raise DevError(problem(program))
    return kept(_folder(go, program), partial(_build, go, program))


def _folder(go: str, program: GoProgram) -> Path:
    return home() / f"{program.binary}-{digest_of(*_inputs(go, program))}"


def _inputs(go: str, program: GoProgram) -> list[bytes]:
    sources = program.sources
    files = sorted([*sources.glob("*.go"), sources / "go.mod", sources / "go.sum"])
    described = [go, "env", "GOVERSION", "GOOS", "GOARCH"]
    version = subprocess.run(described, cwd=sources, capture_output=True, check=False)
    if version.returncode:
        said = version.stderr.decode(errors="replace").strip()
        raise DevError(f"`{' '.join(described)}` failed: {said}; {program.advice}.")
    return [version.stdout, repr(_options(program)).encode(), *(path.read_bytes() for path in files)]


def _build(go: str, program: GoProgram, folder: Path) -> None:
    folder.mkdir()
    with step(f"Building the {program.title} ({program.cost})"):
        target = ["-o", str(folder / program.binary), program.package]
        command = [go, "build", *_options(program), *target]
        done = subprocess.run(command, cwd=program.sources, env={**os.environ, **_ENVIRON}, check=False)
    if done.returncode:
        raise DevError(
            f"`{' '.join(command)}` failed in {program.sources} with exit code {done.returncode} (see above). "
            "Go 1.25 or newer and the Go module proxy are needed."
        )
    for name in program.links:
        (folder / name).symlink_to(program.binary)


def _options(program: GoProgram) -> list[str]:
    """No debugger data, and the linker's variables."""
    variables = "".join(f" -X {variable}" for variable in program.variables)
    return [*_OPTIONS, f"-ldflags=-s -w{variables}"]
