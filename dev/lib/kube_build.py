# SPDX-License-Identifier: Apache-2.0
"""Build the Kubernetes API server and the etcd that the tests run against, and print the folder they are in.

The folder is kept, and made again when the sources in dev/kube, the Go release or the build options change.
Where KUBEBUILDER_ASSETS names a folder with ``etcd`` and ``kube-apiserver``, those are used and nothing is built.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

from environment import _STAMP, REPO, DevError, _digest, _only_one, home, run, step

SOURCES = REPO / "dev" / "kube"
PROGRAMS = ("etcd", "kube-apiserver")
ASSETS = "KUBEBUILDER_ASSETS"

_OPTIONS = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-gcflags=all=-dwarf=false")
# The collector seldom runs: compilers are short-lived, and the memory is there.
_ENVIRON = {"CGO_ENABLED": "0", "GOWORK": "off", "GOGC": "400"}
ADVICE = (
    "install Go 1.25 or newer (https://go.dev/dl, or your package manager) and put it on PATH; "
    f"or set {ASSETS} to a folder with the programs {' and '.join(PROGRAMS)}"
)
COST = "once; minutes (5 of CPU time, more beside the download) and 4 GB of disk for the caches of Go"


def can_provide() -> bool:
    """Whether ``programs`` has anything to start from: a folder given by the user, or Go."""
    return bool(os.environ.get(ASSETS) or shutil.which("go"))


def problem() -> str | None:
    """Why ``programs`` would fail at once."""
    return None if can_provide() else f"no `go` on PATH to build the Kubernetes API server with: {ADVICE}."


def builder() -> str | None:
    """The Go that ``programs`` would build with; None where there is nothing to build."""
    go = shutil.which("go")
    if os.environ.get(ASSETS) or not go or (_folder(go) / _STAMP).exists():
        return None
    return go


def programs() -> Path:
    """The folder with ``etcd`` and ``kube-apiserver``; the first call takes minutes."""
    if given := os.environ.get(ASSETS):
        return _checked(Path(given).expanduser().resolve())
    go = shutil.which("go")
    if not go:
        raise DevError(problem())
    folder = _folder(go)
    with _only_one(folder):
        if not (folder / _STAMP).exists():
            _build(go, folder)
    return folder


def _folder(go: str) -> Path:
    return home() / f"kube-{_digest(*_inputs(go))}"


def _checked(folder: Path) -> Path:
    missing = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if missing:
        raise DevError(
            f"{ASSETS} is {folder}, where there is no program {' and no program '.join(missing)}. "
            f"Put it there, or unset {ASSETS} to have both built with Go."
        )
    return folder


def _inputs(go: str) -> list[bytes]:
    sources = sorted([*SOURCES.glob("*.go"), SOURCES / "go.mod", SOURCES / "go.sum"])
    described = [go, "env", "GOVERSION", "GOOS", "GOARCH"]
    version = subprocess.run(described, cwd=SOURCES, capture_output=True, check=False)
    if version.returncode:
        raise DevError(
            f"`{' '.join(described)}` failed: {version.stderr.decode(errors='replace').strip()}; {ADVICE}."
        )
    return [version.stdout, repr(_OPTIONS).encode(), *(path.read_bytes() for path in sources)]


def _build(go: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with step("Building the Kubernetes API server (minutes at first, seconds when Go's own cache has it)"):
        command = [go, "build", *_OPTIONS, _link_options(), "-o", str(folder / "dispatch-kube"), "."]
        done = subprocess.run(command, cwd=SOURCES, env={**os.environ, **_ENVIRON}, check=False)
    if done.returncode:
        raise DevError(
            f"`{' '.join(command)}` failed in {SOURCES} with exit code {done.returncode} (see above). "
            "Go 1.25 or newer and the Go module proxy are needed."
        )
    for name in PROGRAMS:
        (folder / name).symlink_to("dispatch-kube")
    (folder / _STAMP).write_text("")


def _link_options() -> str:
    """No debugger data, and the version of Kubernetes, which upstream too is given to the linker."""
    found = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", (SOURCES / "go.mod").read_text())
    if not found:
        raise DevError(f"{SOURCES / 'go.mod'} does not name a version of k8s.io/kubernetes")
    values = zip(("gitVersion", "gitMajor", "gitMinor"), found.groups(), strict=True)
    package = "k8s.io/component-base/version"
    return "-ldflags=-s -w " + " ".join(f"-X {package}.{name}={value}" for name, value in values)


def main() -> int:
    argparse.ArgumentParser(
        prog="./dev/kube-build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(programs())
    return 0


if __name__ == "__main__":
    run(main)
