# SPDX-License-Identifier: Apache-2.0
"""Install the package with all its extras in the ways in which installers may resolve them. In each environment, every
executor has to be importable and `airflow dispatch validate --strict` has to accept a router over all three; in some,
the unit tests of the source distribution have to pass."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from devkit.arguments import parser_of
from devkit.environment import (
    AIRFLOW_VERSIONS,
    DEFAULT_AIRFLOW_VERSION,
    REPO,
    DevError,
    lock_file,
    say,
    selection,
)
from devkit.installation import Installation, build, find_interpreter, only
from devkit.tables import Cell, table

PYTHONS = ("3.11", "3.12", "3.13")
RESOLUTIONS = {
    "locked": "the versions in dev/locks",
    "newest": "the newest versions, as an installer takes them today",
    "lowest": "every requirement of the package at its lower bound",
    "uncapped": "the newest versions, our upper bounds left out: says whether they are still needed, never fails",
}
OLDEST_AIRFLOW = "3.1.2"
"""The lower bound of apache-airflow in pyproject.toml; with it, all lower bounds are met at once."""

# Each Python and each resolution once: the same tests run on every Airflow version in ./dev/test --all-versions.
_TESTED = {
    (OLDEST_AIRFLOW, "3.11", "lowest"),
    (DEFAULT_AIRFLOW_VERSION, "3.12", "newest"),
    (DEFAULT_AIRFLOW_VERSION, "3.13", "locked"),
}

_COLUMNS = {
    "celery provider": "apache-airflow-providers-celery",
    "celery": "celery",
    "cncf provider": "apache-airflow-providers-cncf-kubernetes",
    "kubernetes": "kubernetes",
}

# Run in the environment under test: imports every executor, then prints what is installed.
_IMPORT = """
import json
from importlib import import_module
from importlib.metadata import distributions
from airflow_dispatch_provider.get_provider_info import EXECUTORS
for path in EXECUTORS:
    module, _, name = path.rpartition(".")
    getattr(import_module(module), name)
print(json.dumps({each.name: each.version for each in distributions()}))
"""

_KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: nobody, user: {token: none}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
"""
_ROUTER = {
    "AIRFLOW__CORE__EXECUTOR": "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor",
    "AIRFLOW__API_AUTH__JWT_SECRET": "of no use",
    "AIRFLOW__DISPATCH__DEFAULT": "local",
    "AIRFLOW__DISPATCH__ROUTES": '[{"queue": "celery", "to": ["celery"]}, {"queue": "pods", "to": ["pods"]}]',
    "AIRFLOW__DISPATCH__BACKENDS": '{"local": {"executor": "LocalExecutor", "slots": 4},'
    ' "celery": {"executor": "CeleryExecutor", "slots": 8},'
    ' "pods": {"executor": "KubernetesExecutor", "slots": 8}}',
    "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
    "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": "kubeconfig",  # in the folder where it runs
    "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY": "apache/airflow",
    "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG": "latest",
}


@dataclass(frozen=True)
class Case:
    """One environment."""

    airflow_version: str
    python: str
    resolution: str
    tests: bool


@dataclass(frozen=True)
class Result:
    """The outcome of a case."""

    case: Case
    installed: Mapping[str, str]
    """Version by canonical name; empty where nothing could be installed or imported."""

    problem: str
    """Why it failed, empty if it did not."""

    seconds: float


@dataclass(frozen=True)
class Package:
    """The wheel under test: built once, for all cases."""

    wheel: Path
    sources: Path
    """The source distribution, unpacked, without the package itself: its tests import what is installed."""


def main() -> int:
    options = _parse()
    cases = chosen_cases(options)
    found = {python: find_interpreter(python) for python in sorted({case.python for case in cases})}
    missing = [python for python, interpreter in found.items() if interpreter is None]
    if missing and (os.environ.get("CI") or not options.allow_missing_python):
        raise DevError(_missing(missing))
    with tempfile.TemporaryDirectory(prefix="dispatch-resolves-", ignore_cleanup_errors=True) as name:
        package = _package(Path(name), options.dist)
        possible = [case for case in cases if case.python not in missing]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(
                pool.map(lambda case: _check(case, package, Path(name), str(found[case.python])), possible)
            )
    print_results(results)
    for python in missing:
        print(f"NOT TESTED with Python {python}, which was not found.")
    return 0 if all(not result.problem or result.case.resolution == "uncapped" for result in results) else 1


def _parse() -> argparse.Namespace:
    ways = "\n".join(f"  {name:<10}{words}" for name, words in RESOLUTIONS.items())
    parser = parser_of(
        "./dev/check_resolves",
        __doc__,
        epilog=f"resolutions:\n{ways}\n\nexample:\n  ./dev/check_resolves --python 3.12 --resolution newest",
    )
    add = partial(parser.add_argument, action="append", metavar="X")
    add("--python", choices=PYTHONS, help=f"one of {', '.join(PYTHONS)}; may be repeated, as the next two")
    add("--resolution", choices=list(RESOLUTIONS), help="one of those below")
    add(
        "--airflow-version",
        help=f"default: {DEFAULT_AIRFLOW_VERSION}; without these three, what the gate checks",
    )
    parser.add_argument(
        "--tests",
        choices=("some", "all", "none"),
        default="some",
        help="where to run the unit tests (default: once for each Python and each resolution)",
    )
    parser.add_argument(
        "--dist",
        type=Path,
        help="folder with the wheel and the source distribution to check (default: they are built)",
    )
    parser.add_argument(
        "--allow-missing-python",
        action="store_true",
        help="go on where an interpreter is missing; never with CI set",
    )
    return parser.parse_args()


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """Cases that the options ask for, or those of the gate; the longest first."""
    if options.python or options.resolution or options.airflow_version:
        chosen = list(
            product(
                options.airflow_version or [DEFAULT_AIRFLOW_VERSION],
                options.python or PYTHONS,
                options.resolution or RESOLUTIONS,
            )
        )
    else:
        chosen = _gate()
    tested = {"all": lambda *_: True, "none": lambda *_: False, "some": _is_tested}[options.tests]
    cases = [Case(*each, tests=tested(*each)) for each in chosen]
    return sorted(cases, key=lambda case: not case.tests)


def _gate() -> list[tuple[str, str, str]]:
    first = PYTHONS[0]
    default = list(product([DEFAULT_AIRFLOW_VERSION], PYTHONS, ["locked", "newest", "lowest"]))
    others = [
        (version, first, "newest") for version in AIRFLOW_VERSIONS if version != DEFAULT_AIRFLOW_VERSION
    ]
    return [
        *default,
        (OLDEST_AIRFLOW, first, "lowest"),
        *others,
        (DEFAULT_AIRFLOW_VERSION, first, "uncapped"),
    ]


def _is_tested(airflow_version: str, python: str, resolution: str) -> bool:
    return (airflow_version, python, resolution) in _TESTED


def _missing(pythons: list[str]) -> str:
    names = ", ".join(f"Python {python}" for python in pythons)
    first = pythons[0]
    return (
        f"{names} not found, neither on PATH nor as one that uv or pyenv has installed. Install what is missing,"
        f" e.g. `apt-get install python{first} python{first}-venv`, `pyenv install {first}` or"
        f" `uv python install {first}`; or run this with --allow-missing-python, which leaves it untested."
    )


def _package(folder: Path, dist: Path | None) -> Package:
    dist = dist or build(folder)
    with tarfile.open(only(dist, "*.tar.gz")) as archive:
        archive.extractall(folder / "sources", filter="data")
    sources = only(folder / "sources", "*")
    (sources / "airflow_dispatch_provider").rename(folder / "not-imported")
    return Package(only(dist, "*.whl").resolve(), sources)


def _check(case: Case, package: Package, parent: Path, interpreter: str) -> Result:
    name = f"Airflow {case.airflow_version}, Python {case.python}, {case.resolution}"
    say(f"-- {name} ...")
    began = time.monotonic()
    installed: dict[str, str] = {}
    problem = ""
    try:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=name.replace(" ", "-")))
        environment = Installation(folder, interpreter)
        install(environment, case, package.wheel)
        installed |= _import(environment)
        (environment.folder / "kubeconfig").write_text(_KUBECONFIG)
        environment.airflow("dispatch", "validate", "--strict", env=_ROUTER)
        problem = _bounds_not_met(case, installed)
        if case.tests:
            _run_tests(environment, package.sources, selection(case.airflow_version))
    except DevError as error:
        problem = str(error)
    seconds = time.monotonic() - began
    say(f"   {name}: {f'does not work: {problem}' if problem else 'ok'}, {seconds:.0f} s")
    return Result(case, installed, problem, seconds)


def install(environment: Installation, case: Case, wheel: Path) -> None:
    # The core is named too: a pre-release is only taken where it is asked for by name.
    airflow = [f"{name}=={case.airflow_version}" for name in ("apache-airflow", "apache-airflow-core")]
    if case.resolution in ("locked", "newest"):
        constraints = (
            ["--constraints", str(lock_file(case.airflow_version))] if case.resolution == "locked" else []
        )
        environment.install(*constraints, *airflow, f"{wheel}[all]")
        return
    # As requirements of their own: those of the wheel would not count as direct, and keep their bounds.
    lowest = case.resolution == "lowest"
    ours = [each if lowest else without_upper_bound(each) for each in requirements()]
    direct = [str(each) for each in ours if each.name != "apache-airflow"]
    environment.install(*(["--resolution", "lowest-direct"] if lowest else []), *airflow, *direct)
    environment.install("--no-deps", str(wheel))


def requirements() -> list[Requirement]:
    """Those of the package and of all its extras."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    texts = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    return [each for each in map(Requirement, texts) if each.name != project["name"]]


def without_upper_bound(requirement: Requirement) -> Requirement:
    changed = Requirement(str(requirement))
    changed.specifier = SpecifierSet(
        ",".join(str(each) for each in requirement.specifier if "<" not in each.operator)
    )
    return changed


def _import(environment: Installation) -> dict[str, str]:
    """Import every executor; returns the version of each installed distribution by its canonical name."""
    last_line = environment.python("-c", _IMPORT).stdout.splitlines()[-1]
    return {canonicalize_name(name): version for name, version in json.loads(last_line).items()}


def _bounds_not_met(case: Case, installed: Mapping[str, str]) -> str:
    """With the oldest Airflow nothing but our own bounds decides: what is higher claims more than has been tested."""
    if (case.airflow_version, case.resolution) != (OLDEST_AIRFLOW, "lowest"):
        return ""
    higher = [
        f"{each}, but the lowest version that could be installed is {installed[canonicalize_name(each.name)]}"
        for each in requirements()
        if not any(
            bound.operator == ">="
            and Version(bound.version) == Version(installed[canonicalize_name(each.name)])
            for bound in each.specifier
        )
    ]
    return "\n".join(["pyproject.toml claims what cannot be tested:", *higher]) if higher else ""


def _run_tests(environment: Installation, sources: Path, selected: Sequence[str]) -> None:
    group = f"{REPO / 'pyproject.toml'}:unit-tests"
    environment.install("--group", group)
    selected = selected or ["-m", "not exhaustive"]
    copied = environment.folder / "sources"
    shutil.copytree(sources, copied)
    environment.python(
        "-m", "pytest", "-q", "--maxfail=10", "-p", "no:cacheprovider", *selected, "tests/unit", cwd=copied
    )


def print_results(results: Sequence[Result]) -> None:
    """A table, then what went wrong in full."""
    headers = ("Airflow", "Python", "versions", *_COLUMNS, "seconds", "result")
    print("", *table(headers, [_cells(result) for result in results], {"seconds": ".0f"}), sep="\n")
    for result in results:
        if result.case.resolution == "uncapped":
            print(f"\n{verdict_on_caps(result)}")
        elif result.problem:
            case = result.case
            print(
                f"\nAirflow {case.airflow_version}, Python {case.python}, {case.resolution}: {result.problem}"
            )


def _cells(result: Result) -> list[Cell]:
    case = result.case
    failed = "bounds needed" if case.resolution == "uncapped" else "FAILED"
    verdict = failed if result.problem else "ok, with unit tests" if case.tests else "ok"
    versions = [result.installed.get(name) for name in _COLUMNS.values()]
    return [case.airflow_version, case.python, case.resolution, *versions, result.seconds, verdict]


def verdict_on_caps(result: Result) -> str:
    """Whether an upper bound of pyproject.toml can be taken off."""
    capped = [each for each in requirements() if each.specifier != without_upper_bound(each).specifier]
    names = ", ".join(map(str, capped))
    if result.problem:
        return f"Still needed: {names}. Without: {result.problem.strip().splitlines()[-1]}"
    beyond = [each for each in capped if result.installed[canonicalize_name(each.name)] not in each.specifier]
    if not beyond:
        return f"Nothing newer to try than {names} allows."
    bounds = ", ".join(f"{each} ({result.installed[canonicalize_name(each.name)]} works)" for each in beyond)
    return f"{'*' * 78}\nThe upper bound can go: {bounds}. Take it off in pyproject.toml.\n{'*' * 78}"
