# SPDX-License-Identifier: Apache-2.0
"""Which API server the tests get, and when it is built anew."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "dev" / "lib"))
import kube_build
from environment import DevError

pytestmark = pytest.mark.once

# Notes its arguments, and writes the file that `-o` names.
GO = """#!/bin/sh
echo "$@" >> "{calls}"
[ "$1" = env ] && {{ echo go1.26; exit; }}
while [ "$1" != -o ]; do shift; done
: > "$2"
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With no program on PATH, nothing built, and sources of its own."""
    (tmp_path / "bin").mkdir()
    shutil.copytree(kube_build.SOURCES, tmp_path / "sources")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DISPATCH_DEV_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(kube_build.ASSETS, raising=False)
    monkeypatch.setattr(kube_build, "SOURCES", tmp_path / "sources")
    return tmp_path


def install(machine: Path, script: str = GO) -> Path:
    """Put a Go on PATH; returns the file with its calls."""
    calls, go = machine / "calls", machine / "bin" / "go"
    go.write_text(script.format(calls=calls))
    go.chmod(0o755)
    return calls


def builds(calls: Path) -> int:
    return sum(line.startswith("build ") for line in calls.read_text().splitlines())


def test_without_go_the_advice_names_every_way_out(machine: Path) -> None:
    assert not kube_build.can_provide()
    with pytest.raises(DevError, match=r"no `go` on PATH.*install Go 1\.25.*KUBEBUILDER_ASSETS"):
        kube_build.programs()


def test_built_once_for_the_same_sources(machine: Path) -> None:
    calls = install(machine)
    folder = kube_build.programs()
    assert (folder / "etcd").resolve() == (folder / "kube-apiserver").resolve() == folder / "dispatch-kube"
    assert kube_build.programs() == folder
    assert builds(calls) == 1
    (machine / "sources" / "main.go").write_text("package main")
    assert kube_build.programs() != folder
    assert builds(calls) == 2


def test_the_version_of_kubernetes_is_built_in(machine: Path) -> None:
    calls = install(machine)
    kube_build.programs()
    assert "version.gitVersion=v1." in calls.read_text()


def test_a_failed_build_is_tried_again(machine: Path) -> None:
    install(machine, '#!/bin/sh\n[ "$1" = env ] || exit 1\n')
    with pytest.raises(DevError, match=r"failed in .* with exit code 1"):
        kube_build.programs()
    install(machine)
    assert (kube_build.programs() / "etcd").exists()


def test_given_programs_are_used_as_they_are(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = machine / "given"
    given.mkdir()
    monkeypatch.setenv(kube_build.ASSETS, str(given))
    (given / "etcd").touch(mode=0o755)
    with pytest.raises(DevError, match="there is no program kube-apiserver"):
        kube_build.programs()
    (given / "kube-apiserver").touch(mode=0o755)
    assert kube_build.can_provide()
    assert kube_build.programs() == given
