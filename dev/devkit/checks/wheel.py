# SPDX-License-Identifier: Apache-2.0
"""Install the built wheel into a clean environment with Airflow, and check what a user would see there:
first the wheel alone, then with all its extras."""

from __future__ import annotations

import email
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from devkit.arguments import add_airflow_version, parser_of
from devkit.environment import DevError, lock_file, say, step
from devkit.installation import Installation, build, concurrently, only
from devkit.programs import page_build

_PACKAGE = "airflow_dispatch_provider"
_ALWAYS = ("DispatchExecutor", "LocalExecutor", "CeleryKubernetesExecutor", "LocalKubernetesExecutor")
_QUIET_COMMANDS = (("version",), ("dags", "list"), ("config", "list"), ("providers", "list"), ("--help",))
_COMPLAINT = re.compile(r"warn|error|deprecat|traceback", re.IGNORECASE)
_STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+\S*")

# Run in the clean environment. Each executor is loaded in a fork of its own, which has yet to read [core] executor.
_LOAD = """
import json, os, sys, traceback
from airflow.executors.executor_loader import ExecutorLoader

def load(path, entry, name):
    os.environ["AIRFLOW__CORE__EXECUTOR"] = entry
    loaded = ExecutorLoader.load_executor(name)
    found = f"{type(loaded).__module__}.{type(loaded).__qualname__}"
    assert found == path, f"{name} loads {found}, not {path}"

failed = 0
for case in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        try:
            load(*case)
        except BaseException:
            print(case, traceback.format_exc(), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    failed |= os.waitpid(child, 0)[1]
sys.exit(bool(failed))
"""


_LINK = re.compile(r"(?:\]\(|src=\"|href=\"|srcset=\")([^)\s\"]+)")
"""Markdown's links and pictures, and those in HTML."""

_SCHEMA = "airflow_dispatch_provider/settings/dispatch.schema.json"
_PAGE = tuple(f"{_PACKAGE}/operate/page/{name}" for name in (page_build.BUNDLE, page_build.STAMP))


def main() -> int:
    parser = parser_of("./dev/check_wheel", __doc__)
    parser.add_argument("wheel", type=Path, nargs="?", help="default: one is built from this checkout")
    add_airflow_version(parser)
    options = parser.parse_args()
    version = options.airflow_version
    locked = ["--constraints", str(lock_file(version))]
    with tempfile.TemporaryDirectory(prefix="dispatch-wheel-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        wheel = options.wheel.resolve() if options.wheel else only(build(folder, "--wheel"), "*.whl")
        check_contents(wheel)
        with step(f"Installing Airflow {version} into a clean environment"):
            clean = Installation(folder, sys.executable)
            clean.install(*locked, f"apache-airflow=={version}", "apache-airflow-providers-standard")
            clean.airflow("db", "migrate")
            before = complaints(clean)
        with step(f"Checking {wheel.name} alone"):
            clean.install(*locked, str(wheel))
            _check(clean, before)
        with step(f"Checking {wheel.name} with all extras"):
            clean.install(*locked, f"{wheel}[all]")
            _check_with_extras(clean)
    say(f"OK: {wheel.name} on Airflow {version}")
    return 0


def check_contents(wheel: Path) -> None:
    """Check what package indexes, type checkers and editors find in it; raises DevError with all that is wrong."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        described = email.message_from_bytes(archive.read(metadata))
        schema = json.loads(archive.read(_SCHEMA)) if _SCHEMA in names else {}
        bundle, stamp = (archive.read(name) if name in names else None for name in _PAGE)
    stale = page_build.problem_with(bundle, stamp)
    text = str(described.get_payload())
    relative = [link for link in _LINK.findall(text) if not link.startswith(("https://", "#"))]
    urls = dict(entry.split(", ", 1) for entry in described.get_all("Project-URL", []))
    problems = {
        "py.typed is missing": f"{_PACKAGE}/py.typed" not in names,
        f"{_SCHEMA} is missing, or has no $id": "$id" not in schema,
        f"the page is not fresh ({stale}): run ./dev/page": stale is not None,
        "there is no author": not (described["Author"] or described["Author-email"]),
        f"relative links in the description: {', '.join(relative)}": bool(relative),
        "there is no URL called Documentation, to which Airflow's page of providers links": "Documentation"
        not in urls,
        "a URL has a comma, which Airflow 3.1 cannot read": any("," in url for url in urls.values()),
    }
    if found := [problem for problem, is_there in problems.items() if is_there]:
        raise DevError("\n".join([f"{wheel.name}:", *found]))


def complaints(clean: Installation) -> set[str]:
    """Lines with warnings and errors that everyday commands print, without times and numbers."""
    outputs = concurrently(partial(clean.airflow, *command) for command in _QUIET_COMMANDS)
    lines = [line for done in outputs for line in (done.stderr + done.stdout).splitlines()]
    return {_STAMP.sub("", line) for line in lines if _COMPLAINT.search(line)}


def executors(clean: Installation) -> set[str]:
    """Import paths of our executors that ``airflow providers executors`` lists."""
    listed = json.loads(clean.airflow("providers", "executors", "--output", "json").stdout)
    found = {str(value) for row in listed for value in row.values()}
    return {path for path in found if path.startswith(f"{_PACKAGE}.")}


def _check(clean: Installation, complaints_before: set[str]) -> None:
    if new := complaints(clean) - complaints_before:
        raise DevError("with the wheel installed, airflow commands print:\n" + "\n".join(sorted(new)))
    _check_config_section(clean)
    _check_provider(clean)
    clean.airflow("dispatch", "--help")
    listed = executors(clean)
    for name in _ALWAYS:
        if not any(path.endswith(f".{name}") for path in listed):
            raise DevError(f"`airflow providers executors` lists {sorted(listed)}, but no {name}")
    _check_loading(clean, listed)


def _check_provider(clean: Installation) -> None:
    """As the page of providers shows it."""
    listed = json.loads(clean.airflow("providers", "list", "--output", "json").stdout)
    (ours,) = (row for row in listed if row["package_name"] == "airflow-dispatch-provider")
    if not (ours["version"] and ours["description"].strip()):
        raise DevError(f"`airflow providers list` shows {ours}")
    clean.airflow("providers", "get", "--full", "airflow-dispatch-provider")


def _check_config_section(clean: Installation) -> None:
    listed = clean.airflow("config", "list", "--include-descriptions").stdout
    for expected in ("[dispatch]", "backends", "routes", "config_file"):
        if expected not in listed:
            raise DevError(f"`airflow config list` does not show {expected}")


def _check_with_extras(clean: Installation) -> None:
    concurrently(partial(clean.airflow, group, "--help") for group in ("celery", "kubernetes", "dispatch"))
    _check_loading(clean, _declared_executors(clean))


def _declared_executors(clean: Installation) -> list[str]:
    code = f"import json, {_PACKAGE}.get_provider_info as m; print(json.dumps(m.get_provider_info()['executors']))"
    return list(json.loads(clean.python("-c", code).stdout))


def _check_loading(clean: Installation, paths: Iterable[str]) -> None:
    """By module path, by ``alias:path`` and by class name, as ``[core] executor`` and Dags may name them."""
    cases = [
        (path, entry, name)
        for path in sorted(paths)
        for entry, name in ((path, path), (f"ours:{path}", "ours"), (path, path.rpartition(".")[2]))
    ]
    cores = os.cpu_count() or 1
    parts = [json.dumps(cases[first::cores]) for first in range(cores)]
    concurrently(partial(clean.python, "-c", _LOAD, part, env=_DISPATCH_SETTINGS) for part in parts)


_DISPATCH_SETTINGS = {
    "AIRFLOW__DISPATCH__BACKENDS": json.dumps({"local": {"executor": "LocalExecutor", "slots": 2}}),
    "AIRFLOW__DISPATCH__DEFAULT": "local",
}
