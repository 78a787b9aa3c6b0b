# SPDX-License-Identifier: Apache-2.0
"""Which API server the tests get, and when it is built anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from devkit.environment import DevError
from devkit.programs import kube_build

from .go_machine import GoMachine

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoMachine:
    return GoMachine(tmp_path, kube_build, kube_build.ASSETS, monkeypatch)


def test_without_go_the_advice_names_every_way_out() -> None:
    assert not kube_build.can_provide()
    with pytest.raises(DevError, match=r"no `go` on PATH.*install Go 1\.25.*KUBEBUILDER_ASSETS"):
        kube_build.programs()


def test_built_once_for_the_same_sources(machine: GoMachine) -> None:
    machine.install_go()
    folder = kube_build.programs()
    assert (folder / "etcd").resolve() == (folder / "kube-apiserver").resolve() == folder / "dispatch-kube"
    assert kube_build.programs() == folder
    assert machine.builds == 1
    (machine.sources / "main.go").write_text("package main")
    assert kube_build.programs() != folder
    assert machine.builds == 2


def test_the_version_of_kubernetes_is_built_in(machine: GoMachine) -> None:
    machine.install_go()
    kube_build.programs()
    assert "version.gitVersion=v1." in machine.calls


def test_a_failed_build_is_tried_again(machine: GoMachine) -> None:
    machine.install_go('#!/bin/sh\n[ "$1" = env ] || exit 1\n')
    with pytest.raises(DevError, match=r"failed in .* with exit code 1"):
        kube_build.programs()
    machine.install_go()
    assert (kube_build.programs() / "etcd").exists()


def test_given_programs_are_used_as_they_are(machine: GoMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    given = machine.folder / "given"
    given.mkdir()
    monkeypatch.setenv(kube_build.ASSETS, str(given))
    (given / "etcd").touch(mode=0o755)
    with pytest.raises(DevError, match="there is no program kube-apiserver"):
        kube_build.programs()
    (given / "kube-apiserver").touch(mode=0o755)
    assert kube_build.can_provide()
    assert kube_build.programs() == given
