# SPDX-License-Identifier: Apache-2.0
"""Root and an ordinary user: who follows the pages, and what they may run on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from support import require

from devkit.environment import lock_file
from devkit.installation import Installation, build, only

ORDINARY_USER = 12345
"""A user id that no account has."""

SOMEBODY = ORDINARY_USER if os.getuid() == 0 else os.getuid()
NO_PYTHON = "no Python 3.11 or later with venv that an ordinary user may run"


@dataclass(frozen=True)
class User:
    """A user for whom Airflow and this package are installed.

    :param bin: folder of the commands
    :param env: what the user's processes need beside that
    """

    uid: int
    bin: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new folder of this user; ``own`` gives away what is written to it afterwards."""
        with tempfile.TemporaryDirectory(prefix="user_", ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o755)
            self.own(Path(name))
            yield Path(name)

    def own(self, folder: Path) -> None:
        """Give the user a folder with everything in it."""
        own(folder, self.uid)


@contextmanager
def installed_for(uid: int) -> Iterator[User]:
    """The user with an environment: that of this process, or, for another user, one of the same versions.

    Root's Python and checkout may lie where nobody else can enter.
    """
    if uid == os.getuid():
        yield User(uid, Path(sys.executable).parent)
        return
    with User(uid, Path()).folder() as folder:
        python = python_for(uid)
        require(python is not None, NO_PYTHON)
        installation = Installation(folder, str(python / "python3"))
        installation.install("--requirements", str(lock_file(version("apache-airflow"))))
        installation.install("--no-deps", str(only(build(folder, "--wheel"), "*.whl")))
        cache = folder / "bytecode"
        cache.mkdir()
        own(cache, uid)
        # The environment is root's, for uv links its files to those of a cache.
        yield User(uid, installation.interpreter.parent, {"PYTHONPYCACHEPREFIX": str(cache)})


def identity(uid: int, home: Path) -> dict[str, str]:
    """A login's variables; Airflow does not run as a user without a name."""
    name = "root" if uid == 0 else "reader"
    return {"HOME": str(home), "USER": name, "LOGNAME": name}


def own(folder: Path, uid: int) -> None:
    """Give a user a folder with everything in it, where this process may do that."""
    if os.getuid() != 0:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def as_user(uid: int) -> Sequence[str]:
    """The beginning of a command that another user is to run."""
    if uid == os.getuid():
        return []
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def python_for(uid: int) -> Path | None:
    """The folder of a ``python3`` that this user may run and that can make environments; 3.11 or later."""
    can = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    names = [f"{os.path.realpath(sys.base_prefix)}/bin/python3", "/usr/local/bin/python3", "/usr/bin/python3"]
    for python in names:
        # Not started by setpriv itself, which has root's capabilities until then.
        command = [*as_user(uid), "env", python, "-c", can]
        if Path(python).exists() and not subprocess.run(command, capture_output=True, check=False).returncode:
            return Path(python).parent
    return None
