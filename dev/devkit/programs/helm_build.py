# SPDX-License-Identifier: Apache-2.0
"""Build the helm that the tests render charts with, and print where it is.

It is kept, and made again when dev/helm/go.mod, the Go release or the build options change. Where DISPATCH_TEST_HELM
names a helm 3.19 or newer, that is used and nothing is built.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from devkit.environment import REPO, DevError
from devkit.programs.go_build import GO_ADVICE, GoProgram, built, print_path

SOURCES = REPO / "dev" / "helm"
GIVEN = "DISPATCH_TEST_HELM"

ADVICE = f"{GO_ADVICE}; or set {GIVEN} to a helm 3.19 or newer"


def can_provide() -> bool:
    """Whether ``helm`` has anything to start from: a program given by the user, or Go."""
    return bool(os.environ.get(GIVEN) or shutil.which("go"))


def helm() -> Path:
    """The program; the first call takes minutes."""
    if given := os.environ.get(GIVEN):
        return _checked(Path(given).expanduser().resolve())
    program = GoProgram(
        title="helm",
        sources=SOURCES,
        package="helm.sh/helm/v3/cmd/helm",
        binary="helm",
        advice=ADVICE,
        cost="minutes and about 1 GB at first, seconds when Go's own caches have it",
    )
    return built(program) / program.binary


def _checked(program: Path) -> Path:
    if not os.access(program, os.X_OK):
        raise DevError(
            f"{GIVEN} is {program}, which is no program. Name one, or unset {GIVEN} to have it built."
        )
    return program


def main() -> int:
    return print_path("./dev/helm-build", __doc__, helm)
