# SPDX-License-Identifier: Apache-2.0
"""Build the page of Airflow's UI from ui/ into the package, where the wheel takes it up.

Needs Node 18 or newer with npm, and a registry for npm; what is installed is pinned in ui/package-lock.json. Does
nothing where the page is as its sources are. Without it, everything but the page works."""

from __future__ import annotations

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

from devkit.arguments import parser_of
from devkit.environment import REPO, DevError, digest_of, say, step

SOURCES = REPO / "ui"
TARGET = REPO / "airflow_dispatch_provider" / "operate" / "page"
BUNDLE, STAMP = "dispatch.js", "built_from.json"

MOST_BYTES = 300_000

_ADVICE = (
    "install Node 18 or newer with npm (Debian and Ubuntu: apt-get install nodejs npm) and put it on PATH"
)


def digest_of_sources(sources: Path = SOURCES) -> str:
    """Changes with every file that decides what is built."""
    files = sorted(path for path in [*sources.glob("*.*"), *sources.glob("src/**/*")] if path.is_file())
    return digest_of(*(part for path in files for part in (path.name.encode(), path.read_bytes())))


def problem_with(bundle: bytes | None, stamp: bytes | None, sources: Path = SOURCES) -> str | None:
    """Why a bundle is not that of the sources, or may not be shipped; None: it is."""
    if bundle is None or stamp is None:
        return "it has not been built"
    known = json.loads(stamp)
    if known["sources"] != digest_of_sources(sources):
        return "ui/ has changed since it was built"
    if known["bundle"] != sha256(bundle).hexdigest():
        return "it has been changed since it was built"
    if len(bundle) > MOST_BYTES:
        return f"it has {len(bundle):,} bytes, and {MOST_BYTES:,} are the most"
    return None


def problem(target: Path = TARGET, sources: Path = SOURCES) -> str | None:
    """``problem_with`` the bundle of this checkout."""
    return problem_with(_content(target / BUNDLE), _content(target / STAMP), sources)


def build(target: Path = TARGET, sources: Path = SOURCES) -> None:
    """Build it where it is not fresh.

    :raises DevError: there is no npm, or it fails
    """
    if problem(target, sources) is None:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise DevError(f"no `npm` on PATH to build the page with: {_ADVICE}.")
    with step("Building the page"):
        if not _is_installed(sources):
            _run([npm, "ci", "--no-audit", "--no-fund"], sources)
            shutil.copy(sources / "package-lock.json", sources / "node_modules" / STAMP)
        _run([npm, "run", "--silent", "check"], sources)
        shutil.rmtree(target, ignore_errors=True)
        _run([npm, "run", "--silent", "build", "--", "--outDir", str(target), "--logLevel", "warn"], sources)
    bundle = sha256((target / BUNDLE).read_bytes()).hexdigest()
    (target / STAMP).write_text(json.dumps({"sources": digest_of_sources(sources), "bundle": bundle}))
    if wrong := problem(target, sources):
        raise DevError(f"The page cannot be shipped: {wrong}.")


def _is_installed(sources: Path) -> bool:
    """Whether node_modules is what the lock file says."""
    lock, installed = _content(sources / "package-lock.json"), _content(sources / "node_modules" / STAMP)
    return lock is not None and lock == installed


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise DevError(
            f"`{' '.join(command)}` failed in {folder} with exit code {done.returncode} (see above)."
        )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def main() -> int:
    parser = parser_of("./dev/page", __doc__)
    parser.add_argument("--check", action="store_true", help="say whether it is fresh, and build nothing")
    if parser.parse_args().check:
        if wrong := problem():
            raise DevError(f"The page is not fresh: {wrong}. Run ./dev/page.")
    else:
        build()
    say(f"{TARGET / BUNDLE}: {(TARGET / BUNDLE).stat().st_size:,} bytes")
    return 0
