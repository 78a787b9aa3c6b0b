# SPDX-License-Identifier: Apache-2.0
"""Environments as a user has them: Airflow and the built package, apart from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from devkit.environment import REPO, DevError, airflow_environ, python_of, run_uv, step

T = TypeVar("T")

PACKAGE = "airflow_dispatch_provider"


class Installation:
    """A virtual environment, and an AIRFLOW_HOME of its own.

    :param folder: made by the caller; holds both
    :param python: the interpreter to make it from
    """

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        run_uv(["venv", "--quiet", "--python", python, str(folder / "env")])
        self.interpreter = python_of(folder / "env")
        self._env = airflow_environ(folder / "home")

    def install(self, *arguments: str) -> None:
        """``uv pip install`` with these arguments; raises DevError when it fails, and uv says why."""
        run_uv(["pip", "install", "--quiet", "--python", str(self.interpreter), *arguments])

    def airflow(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "airflow", *arguments, env=env)

    def python(
        self, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python there; raises DevError with its output when it fails."""
        done = subprocess.run(
            [str(self.interpreter), *arguments],
            env={**self._env, **(env or {})},
            cwd=cwd or self.folder,  # not the checkout, whose package would be imported
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            what = " ".join(argument for argument in arguments if "\n" not in argument)
            raise DevError(f"`{what}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        return done


def build(folder: Path, *kinds: str) -> Path:
    """
    Build the package from this checkout; returns the folder with the files.

    :param kinds: ``--wheel``, ``--sdist``; both without any, the wheel from the source distribution
    """
    with step("Building the package"):
        run_uv(["build", "--quiet", *kinds, "--out-dir", str(folder / "dist"), str(REPO)])
    return folder / "dist"


def find_interpreter(python: str) -> str | None:
    """A Python of that version, e.g. ``3.12``: on PATH, or one that pyenv or uv has installed; None where none runs."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local" / "share" / "uv" / "python")
    installed = [*pyenv.glob(f"{python}.*/bin/python"), *uv.glob(f"cpython-{python}.*/bin/python")]
    candidates = [shutil.which(f"python{python}"), *map(str, sorted(installed))]
    return next((each for each in candidates if each and _is_python(each, python)), None)


def _is_python(path: str, python: str) -> bool:
    """Whether it runs, as the shims of pyenv may not, and is of that version."""
    asked = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == python


def concurrently(calls: Iterable[Callable[[], T]]) -> list[T]:
    """The results in order, or what the first of them raises: each is a process that keeps a core busy for seconds."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def only(folder: Path, pattern: str) -> Path:
    """The one file of the folder that matches; raises DevError where it is not there, or is not alone."""
    found: Sequence[Path] = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DevError(f"expected one {pattern} in {folder}, found {[path.name for path in found]}")
    return found[0]
