# SPDX-License-Identifier: Apache-2.0
"""Which helm the tests get, and when it is built anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from devkit.environment import DevError
from devkit.programs import helm_build

from .go_machine import GoMachine

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoMachine:
    return GoMachine(tmp_path, helm_build, helm_build.GIVEN, monkeypatch)


def test_without_go_the_advice_names_every_way_out() -> None:
    assert not helm_build.can_provide()
    with pytest.raises(DevError, match=r"no `go` on PATH.*install Go 1\.25.*DISPATCH_TEST_HELM"):
        helm_build.helm()


def test_built_once_for_the_same_release(machine: GoMachine) -> None:
    machine.install_go()
    program = helm_build.helm()
    assert helm_build.helm() == program
    assert machine.builds == 1
    pins = machine.sources / "go.mod"
    pins.write_text(pins.read_text().replace("helm.sh/helm/v3 v3", "helm.sh/helm/v3 v3.0"))
    assert helm_build.helm() != program
    assert machine.builds == 2


def test_a_given_helm_is_used_as_it_is(machine: GoMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    given = machine.folder / "helm"
    monkeypatch.setenv(helm_build.GIVEN, str(given))
    with pytest.raises(DevError, match="which is no program"):
        helm_build.helm()
    given.touch(mode=0o755)
    assert helm_build.can_provide()
    assert helm_build.helm() == given
