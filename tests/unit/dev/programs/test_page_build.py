# SPDX-License-Identifier: Apache-2.0
"""The page is built where it is not fresh. npm is a fake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devkit.environment import DevError
from devkit.programs import page_build

NPM = """#!/bin/sh
echo "$@" >>calls
case "$*" in
ci*) mkdir -p node_modules ;;
*build*) mkdir -p "$6" && cat src/main.tsx >"$6/dispatch.js" ;;
esac
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a page, and an npm that copies it."""
    folder = tmp_path / "ui"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.tsx").write_text("page")
    (folder / "package-lock.json").write_text("{}")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(NPM)
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    return folder


def calls(sources: Path) -> list[str]:
    return [line.split()[0] for line in (sources / "calls").read_text().splitlines()]


def test_it_is_installed_checked_and_built_once(sources: Path, tmp_path: Path) -> None:
    """A second call has nothing to do."""
    target = tmp_path / "page"
    assert page_build.problem(target, sources) == "it has not been built"
    page_build.build(target, sources)
    page_build.build(target, sources)
    assert (target / "dispatch.js").read_text() == "page"
    assert calls(sources) == ["ci", "run", "run"]
    assert page_build.problem(target, sources) is None


def test_it_is_built_anew_after_a_change(sources: Path, tmp_path: Path) -> None:
    """The packages that are installed stay, unless the lock file has changed."""
    target = tmp_path / "page"
    page_build.build(target, sources)
    (sources / "src" / "main.tsx").write_text("another page")
    assert page_build.problem(target, sources) == "ui/ has changed since it was built"
    page_build.build(target, sources)
    assert (target / "dispatch.js").read_text() == "another page"
    assert calls(sources).count("ci") == 1
    (sources / "package-lock.json").write_text('{"another": 1}')
    page_build.build(target, sources)
    assert calls(sources).count("ci") == 2


def test_a_bundle_that_somebody_has_changed_is_not_fresh(sources: Path, tmp_path: Path) -> None:
    """Nor is one that is too large."""
    target = tmp_path / "page"
    page_build.build(target, sources)
    (target / "dispatch.js").write_text("by hand")
    assert page_build.problem(target, sources) == "it has been changed since it was built"
    (sources / "src" / "main.tsx").write_text("x" * (page_build.MOST_BYTES + 1))
    with pytest.raises(DevError, match="300,000 are the most"):
        page_build.build(target, sources)


def test_without_npm_it_says_what_to_install(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an error of one line."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevError, match="apt-get install nodejs npm"):
        page_build.build(tmp_path / "page", sources)
