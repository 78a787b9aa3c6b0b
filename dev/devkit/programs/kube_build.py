# SPDX-License-Identifier: Apache-2.0
"""Build the Kubernetes API server and the etcd that the tests run against, and print the folder they are in.

The folder is kept, and made again when the sources in dev/kube, the Go release or the build options change.
Where KUBEBUILDER_ASSETS names a folder with ``etcd`` and ``kube-apiserver``, those are used and nothing is built.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from devkit.environment import REPO, DevError
from devkit.programs import go_build
from devkit.programs.go_build import GO_ADVICE, print_path

SOURCES = REPO / "dev" / "kube"
PROGRAMS = ("etcd", "kube-apiserver")
ASSETS = "KUBEBUILDER_ASSETS"

ADVICE = f"{GO_ADVICE}; or set {ASSETS} to a folder with the programs {' and '.join(PROGRAMS)}"
COST = "once; minutes (5 of CPU time, more beside the download) and 4 GB of disk for the caches of Go"


def can_provide() -> bool:
    """Whether ``programs`` has anything to start from: a folder given by the user, or Go."""
    return problem() is None


def problem() -> str | None:
    """Why ``programs`` would fail at once."""
    return None if os.environ.get(ASSETS) else go_build.problem(_program())


def builder() -> str | None:
    """The Go that ``programs`` would build with; None where there is nothing to build."""
    return None if os.environ.get(ASSETS) else go_build.builder(_program())


def programs() -> Path:
    """The folder with ``etcd`` and ``kube-apiserver``; the first call takes minutes."""
    if given := os.environ.get(ASSETS):
        return _checked(Path(given).expanduser().resolve())
    return go_build.built(_program())


def _program() -> go_build.GoProgram:
    return go_build.GoProgram(
        title="Kubernetes API server",
        sources=SOURCES,
        package=".",
        binary="dispatch-kube",
        variables=_version(),
        links=PROGRAMS,
        advice=ADVICE,
        cost=COST,
    )


def _checked(folder: Path) -> Path:
    missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if missing:
        raise DevError(
            f"{ASSETS} is {folder}, where there is no program {' and no program '.join(missing)}. "
            f"Put it there, or unset {ASSETS} to have both built with Go."
        )
    return folder


def _version() -> tuple[str, ...]:
    """The version of Kubernetes, which upstream too is given to the linker."""
    found = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", (SOURCES / "go.mod").read_text())
    if not found:
        raise DevError(f"{SOURCES / 'go.mod'} does not name a version of k8s.io/kubernetes")
    values = zip(("gitVersion", "gitMajor", "gitMinor"), found.groups(), strict=True)
    return tuple(f"k8s.io/component-base/version.{name}={value}" for name, value in values)


def main() -> int:
    return print_path("./dev/kube-build", __doc__, programs)
