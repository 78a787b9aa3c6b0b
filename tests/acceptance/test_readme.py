# SPDX-License-Identifier: Apache-2.0
"""README and quickstart, followed to the letter by somebody who has nothing but Python and git.

pip keeps what it has downloaded in a cache that outlives the test; nothing else is shared with earlier runs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from literal.project import project_url
from literal.reader import Reader
from literal.users import NO_PYTHON, SOMEBODY, own, python_for
from support import require

from devkit.servers.process import free_port

pytestmark = [pytest.mark.acceptance, pytest.mark.once]

ROOT = Path(__file__).parents[2]
PROJECT_URL = project_url()
PIP_CACHE = ROOT / ".cache" / "pip"


@pytest.fixture(scope="session")
def repository() -> Iterator[Path]:
    """The repository to clone: this checkout as it is now, whether or not it is committed or has a history."""
    with tempfile.TemporaryDirectory(prefix="literal-") as name:
        Path(name).chmod(0o755)
        for words in (
            ["init", "--quiet"],
            ["add", "--all"],
            ["-c", "user.name=test", "-c", "user.email=", "commit", "--quiet", "--message=now"],
        ):
            subprocess.run(["git", f"--git-dir={name}/.git", f"--work-tree={ROOT}", *words], check=True)
        yield Path(name)


@pytest.fixture
def make_reader(repository: Path) -> Iterator[Callable[[int], Reader]]:
    """A reader with Python and git. The project's address leads to this checkout, and a free port stands for 8080."""
    with ExitStack() as stack:

        def make(uid: int) -> Reader:
            python = python_for(uid)
            require(python is not None, NO_PYTHON)
            PIP_CACHE.mkdir(parents=True, exist_ok=True)
            env = {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": f"url.{repository}.insteadOf",
                "GIT_CONFIG_VALUE_0": PROJECT_URL,
                "PIP_CACHE_DIR": str(PIP_CACHE),
                "PIP_COMPILE": "0",  # Python compiles what it imports, a small part of what pip installs
            }
            reader = stack.enter_context(Reader([python], env, uid, renamed={"8080": str(free_port())}))
            for folder in (repository, PIP_CACHE):
                own(folder, uid)
            return reader

        yield make


@pytest.mark.timeout(1200)
def test_the_readme_can_be_followed_to_the_letter(make_reader: Callable[[int], Reader]) -> None:
    """By an ordinary user."""
    make_reader(SOMEBODY).follow(ROOT / "README.md", timeout=600)


@pytest.mark.timeout(1200)
def test_the_quickstart_can_be_followed_to_the_letter(make_reader: Callable[[int], Reader]) -> None:
    """By whoever runs the tests: root, in a container."""
    make_reader(os.getuid()).follow(ROOT / "docs" / "quickstart.md", timeout=600)
