# SPDX-License-Identifier: Apache-2.0
"""Python environments to develop in: one per supported Airflow version and Python, made from the lock file.

Everything is kept under ``.cache/`` of the checkout, or under ``$DISPATCH_DEV_HOME`` where that is set;
deleting the folder is always safe. Standard library only, since this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

AIRFLOW_VERSIONS = ("3.1.8", "3.2.2", "3.3.2", "3.4.0b2")
DEFAULT_AIRFLOW_VERSION = "3.3.2"
WITH_FOREIGN_EXECUTORS = f"{DEFAULT_AIRFLOW_VERSION}-foreign"
"""An environment with other providers' executors, too, see the dependency groups in pyproject.toml."""

ENVIRONMENTS = (*AIRFLOW_VERSIONS, WITH_FOREIGN_EXECUTORS)

REPO = Path(__file__).resolve().parents[2]
DEV = REPO / "dev"
LOCKS = DEV / "locks"
UV = (DEV / "uv.txt").read_text().strip()
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

GIB = 2**30
ENVIRONMENT_DISK = 0.7 * GIB
"""Measured: an environment, and uv; as much again in uv's cache where that is on another file system."""

# A stamp is written last, so a folder without one was interrupted and is made again.
_STAMP = "complete.stamp"


class DevError(Exception):
    """Something a developer can act on; shown without a traceback."""


def say(text: str, end: str = "\n") -> None:
    """Print to stderr. Where nobody reads it any more, as after a Ctrl-C that ended ``tee`` too, there is still much to
    stop."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True, end=end)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, and say how long it took."""
    began = time.monotonic()
    say(f"-- {title} ...")
    yield
    say(f"   {title}: {time.monotonic() - began:.1f} s")


def home() -> Path:
    """The folder that holds environments and tools."""
    chosen = os.environ.get("DISPATCH_DEV_HOME")
    folder = Path(chosen).expanduser().resolve() if chosen else REPO / ".cache"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DevError(
            f"cannot make {folder}: {error}. Set DISPATCH_DEV_HOME to a folder you own."
        ) from error
    if not os.access(folder, os.W_OK):
        raise DevError(f"cannot write to {folder}. Set DISPATCH_DEV_HOME to a folder you own.")
    return folder


def without_airflow_settings() -> dict[str, str]:
    """This process's environment without the Airflow settings of whoever runs it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}


def airflow_environ(airflow_home: Path | str) -> dict[str, str]:
    """The same, with a home of its own and no examples."""
    own = {"AIRFLOW_HOME": str(airflow_home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    return {**without_airflow_settings(), **own}


def variables_of(sections: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Airflow's options, by section, as environment variables."""
    return {
        f"AIRFLOW__{section.upper()}__{option.upper()}": value
        for section, options in sections.items()
        for option, value in options.items()
    }


def lock_file(airflow_version: str) -> Path:
    return LOCKS / f"airflow-{airflow_version}.txt"


def selection(airflow_version: str) -> list[str]:
    """Arguments for pytest: what is left out with this version, see the markers in pyproject.toml."""
    if airflow_version in (DEFAULT_AIRFLOW_VERSION, WITH_FOREIGN_EXECUTORS):
        return []
    oldest, newest = AIRFLOW_VERSIONS[0], AIRFLOW_VERSIONS[-1]
    left_out = {
        "once": True,
        "recent": airflow_version != newest,
        "ends": airflow_version not in (oldest, newest),
    }
    return ["-m", " and ".join(f"not {marker}" for marker, is_so in left_out.items() if is_so)]


def ensure(airflow_version: str) -> Path:
    """Make or update the environment for an Airflow version; returns its Python."""
    folder = folder_of(airflow_version)
    with _only_one(folder):
        _make(folder, partial(_create, airflow_version=airflow_version), _has_python)
        _install_project(folder)
    return python_of(folder)


def environment_exists(airflow_version: str) -> bool:
    return is_kept(folder_of(airflow_version), _has_python)


def kept(folder: Path, make: Callable[[Path], None], is_intact: Callable[[Path], bool] = Path.exists) -> Path:
    """The folder, which is made where it is not there, was interrupted before, or is not intact any more.

    :param make: called with the path, at which nothing is then
    """
    with _only_one(folder):
        _make(folder, make, is_intact)
    return folder


def is_kept(folder: Path, is_intact: Callable[[Path], bool] = Path.exists) -> bool:
    """Whether ``kept`` would make nothing."""
    return (folder / _STAMP).exists() and is_intact(folder)


def _make(folder: Path, make: Callable[[Path], None], is_intact: Callable[[Path], bool]) -> None:
    if not is_kept(folder, is_intact):
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
        (folder / _STAMP).write_text("")


def enter(airflow_version: str) -> None:
    """Go on with this very command in the environment of an Airflow version (a no-op when already there)."""
    python = ensure(airflow_version)
    if not is_inside(airflow_version):
        os.execv(python, [str(python), *sys.orig_argv[1:]])


def is_inside(airflow_version: str) -> bool:
    """Whether this process runs in the environment of an Airflow version."""
    return Path(sys.executable) == python_of(folder_of(airflow_version))


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def disk_problem(folder: Path, needed: float, what: str, remedy: str) -> str | None:
    """Says so where a folder's file system has less than this many bytes left.

    :param what: needs them, in words
    """
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return None
    return (
        f"{what} needs {needed / GIB:.1f} GB of disk in {folder}, and {free / GIB:.1f} GB are free. {remedy}"
    )


def new_environment(folder: Path) -> Path:
    """An empty virtual environment with this Python; returns its Python."""
    run_uv(["venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    return python_of(folder)


def run_uv(arguments: Sequence[str], stdin: str | None = None) -> None:
    """Run uv, or raise DevError with what was tried."""
    uv = _uv()
    done = subprocess.run(
        [str(uv), *arguments], input=stdin, text=True, env=_uv_environ(uv), cwd=REPO, check=False
    )
    if done.returncode:
        raise DevError(f"`uv {' '.join(arguments)}` failed with exit code {done.returncode} (see above)")


def run(main: Callable[[], int | None]) -> None:
    """Call a script's main and turn what it returns or raises into an exit code."""
    try:
        sys.exit(main())
    except DevError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


class Terminated(KeyboardInterrupt):
    """A signal that this process alone has got; a Ctrl-C gets to its children, too."""


def interrupt_on_signals() -> None:
    """Have SIGTERM, and the SIGHUP of a terminal that is closed, end the script as Ctrl-C does, so that it stops what
    it has started. That takes SIGINT, which is ignored in what a shell starts in the background, and in all that this
    starts."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore_signals() -> None:
    """For the time in which it stops that: a second Ctrl-C must not leave processes behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def folder_of(airflow_version: str) -> Path:
    """Of an environment. A copied checkout must not use that of the original, nor one Python that of another."""
    lock = lock_file(airflow_version)
    if not lock.exists():
        raise DevError(f"no lock file {lock}. Make it: ./dev/lock --airflow-version {airflow_version}")
    digest = digest_of(str(REPO).encode(), lock.read_bytes())
    return home() / f"env-{airflow_version}-py{PYTHON}-{digest}"


def _create(folder: Path, airflow_version: str) -> None:
    remedy = "Set DISPATCH_DEV_HOME to a folder on a larger disk, or make room."
    what = f"an environment with Airflow {airflow_version}"
    if problem := disk_problem(folder.parent, ENVIRONMENT_DISK, what, remedy):
        raise DevError(problem)
    with step(f"Installing Airflow {airflow_version} and the tools for Python {PYTHON} into {folder}"):
        python = new_environment(folder)
        lock = str(lock_file(airflow_version))
        run_uv(["pip", "install", "--quiet", "--python", str(python), "--requirements", lock])


def _install_project(folder: Path) -> None:
    """Install the checkout itself (editable), again whenever its metadata changed."""
    stamp = folder / _STAMP
    wanted = digest_of(*(path.read_bytes() for path in _metadata_files()))
    if stamp.read_text() == wanted:
        return
    with step("Installing this checkout into it"):
        python = str(python_of(folder))
        options = ["--quiet", "--no-deps", "--no-build-isolation"]  # hatchling is in the locked set
        run_uv(["pip", "install", *options, "--python", python, "--editable", str(REPO)])
    stamp.write_text(wanted)


def _has_python(folder: Path) -> bool:
    """Whether the Python that an environment was made with is still installed."""
    return python_of(folder).exists()


def _metadata_files() -> list[Path]:
    return [REPO / "pyproject.toml", REPO / "airflow_dispatch_provider" / "__init__.py"]


def digest_of(*parts: bytes) -> str:
    """Part of a folder's name: another one for other parts."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:10]


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two commands started together do not make it twice."""
    with folder.with_name(f"{folder.name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"-- Waiting: another command is making {folder}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _uv() -> Path:
    """The pinned uv from its wheel; where this Python cannot make environments, the one on PATH."""
    folder = home() / UV.replace("==", "-")
    found = shutil.which("uv")
    if found and not is_kept(folder, _has_python) and importlib.util.find_spec("ensurepip") is None:
        return Path(found)
    return kept(folder, _install_uv, _has_python) / "bin" / "uv"


def _install_uv(folder: Path) -> None:
    say(f"-- Installing {UV} ...")
    if subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False).returncode:
        raise DevError(
            f"`{sys.executable} -m venv` failed (see above). On Debian or Ubuntu: apt-get install python{PYTHON}-venv; "
            "anywhere: put uv on PATH."
        )
    wheel = ["install", "--quiet", "--requirement", str(DEV / "uv.txt")]
    if subprocess.run([*_pip(folder), *wheel], check=False).returncode:
        raise DevError(f"pip could not install {UV} (see above). Is the package index reachable?")


def _pip(folder: Path) -> list[str]:
    return [str(python_of(folder)), "-m", "pip", "--disable-pip-version-check"]


def _uv_environ(uv: Path) -> dict[str, str]:
    """The environment for uv: pip's own index, certificate and proxy settings, in uv's words."""
    settings = {**_pip_settings_for_uv(uv.parents[1]), **os.environ}
    settings.pop("VIRTUAL_ENV", None)
    if "UV_CACHE_DIR" not in settings and not _writable(Path.home()):
        settings["UV_CACHE_DIR"] = str(home() / "uv-cache")
    return settings


def _pip_settings_for_uv(folder: Path) -> dict[str, str]:
    if not python_of(folder).exists():
        return {}  # a uv that the user has installed, and configured
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "cert": "SSL_CERT_FILE",
        "proxy": "ALL_PROXY",
    }
    listed = subprocess.run([*_pip(folder), "config", "list"], capture_output=True, text=True, check=False)
    found = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        name = names.get(key.rpartition(".")[2])
        if name:
            found[name] = " ".join(value.strip("'\"").replace("\\n", " ").split())
    return found


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK)
