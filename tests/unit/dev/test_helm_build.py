# SPDX-License-Identifier: Apache-2.0
"""Which helm the tests get, and when it is built anew."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from .test_kube_build import builds, install

sys.path.append(str(Path(__file__).parents[3] / "dev" / "lib"))
import helm_build
from environment import DevError

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With no program on PATH, nothing built, and sources of its own."""
    (tmp_path / "bin").mkdir()
    shutil.copytree(helm_build.SOURCES, tmp_path / "sources")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DISPATCH_DEV_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(helm_build.GIVEN, raising=False)
    monkeypatch.setattr(helm_build, "SOURCES", tmp_path / "sources")
    return tmp_path


def test_without_go_the_advice_names_every_way_out(machine: Path) -> None:
    assert not helm_build.can_provide()
    with pytest.raises(DevError, match=r"no `go` on PATH.*install Go 1\.25.*DISPATCH_TEST_HELM"):
        helm_build.helm()


def test_built_once_for_the_same_release(machine: Path) -> None:
    calls = install(machine)
    program = helm_build.helm()
    assert helm_build.helm() == program
    assert builds(calls) == 1
    pins = machine / "sources" / "go.mod"
    pins.write_text(pins.read_text().replace("helm.sh/helm/v3 v3", "helm.sh/helm/v3 v3.0"))
    assert helm_build.helm() != program
    assert builds(calls) == 2


def test_a_given_helm_is_used_as_it_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = machine / "helm"
    monkeypatch.setenv(helm_build.GIVEN, str(given))
    with pytest.raises(DevError, match="which is no program"):
        helm_build.helm()
    given.touch(mode=0o755)
    assert helm_build.can_provide()
    assert helm_build.helm() == given
