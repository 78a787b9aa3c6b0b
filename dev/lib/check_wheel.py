# SPDX-License-Identifier: Apache-2.0
"""Install the built wheel into a clean environment with Airflow, and check what a user would see there:
first the wheel alone, then with all its extras."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from environment import (
    REPO,
    DevError,
    add_airflow_version,
    lock_file,
    new_environment,
    run,
    run_uv,
    say,
    step,
)

T = TypeVar("T")

_PACKAGE = "airflow_dispatch_provider"
_ALWAYS = ("DispatchExecutor", "LocalExecutor", "CeleryKubernetesExecutor", "LocalKubernetesExecutor")
_QUIET_COMMANDS = (("version",), ("dags", "list"), ("config", "list"), ("providers", "list"), ("--help",))
_COMPLAINT = re.compile(r"warn|error|deprecat|traceback", re.IGNORECASE)
_STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+\S*")

# Run in the clean environment, with [core] executor set to the entry given: loads it under that name.
_LOAD = """
import sys
from airflow.executors.executor_loader import ExecutorLoader
path, name = sys.argv[1:]
loaded = ExecutorLoader.load_executor(name)
found = f"{type(loaded).__module__}.{type(loaded).__qualname__}"
sys.exit(None if found == path else f"{name} loads {found}, not {path}")
"""


class Installation:
    """A virtual environment with Airflow, and an AIRFLOW_HOME of its own."""

    def __init__(self, folder: Path, airflow_version: str) -> None:
        self._python = new_environment(folder / "env")
        self._constraints = ["--constraints", str(lock_file(airflow_version))]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        self._env = {
            **inherited,
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        self.install(f"apache-airflow=={airflow_version}", "apache-airflow-providers-standard")
        self.airflow("db", "migrate")

    def install(self, *requirements: str) -> None:
        run_uv(
            ["pip", "install", "--quiet", "--python", str(self._python), *self._constraints, *requirements]
        )

    def airflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "airflow", *arguments)

    def python(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run Python there; raises DevError with its output when it fails."""
        done = subprocess.run(
            [str(self._python), *arguments],
            env={**self._env, **env},
            cwd=self._python.parent,  # not the checkout, whose package would be imported
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            what = " ".join(argument for argument in arguments if "\n" not in argument)
            raise DevError(f"`{what}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        return done

    def complaints(self) -> set[str]:
        """Lines with warnings and errors that everyday commands print, without times and numbers."""
        outputs = _concurrently(partial(self.airflow, *command) for command in _QUIET_COMMANDS)
        lines = [line for done in outputs for line in (done.stderr + done.stdout).splitlines()]
        return {_STAMP.sub("", line) for line in lines if _COMPLAINT.search(line)}

    def executors(self) -> set[str]:
        """Import paths of our executors that ``airflow providers executors`` lists."""
        listed = json.loads(self.airflow("providers", "executors", "--output", "json").stdout)
        found = {str(value) for row in listed for value in row.values()}
        return {path for path in found if path.startswith(f"{_PACKAGE}.")}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev/check_wheel", description=__doc__)
    parser.add_argument("wheel", type=Path, nargs="?", help="default: one is built from this checkout")
    add_airflow_version(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dispatch-wheel-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        wheel = options.wheel.resolve() if options.wheel else _build(folder)
        with step(f"Installing Airflow {options.airflow_version} into a clean environment"):
            clean = Installation(folder, options.airflow_version)
            before = clean.complaints()
        with step(f"Checking {wheel.name} alone"):
            clean.install(str(wheel))
            _check(clean, before)
        with step(f"Checking {wheel.name} with all extras"):
            clean.install(f"{wheel}[all]")
            _check_with_extras(clean)
    say(f"OK: {wheel.name} on Airflow {options.airflow_version}")
    return 0


def _build(folder: Path) -> Path:
    with step("Building the wheel"):
        run_uv(["build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(REPO)])
    return next((folder / "dist").glob("*.whl"))


def _check(clean: Installation, complaints_before: set[str]) -> None:
    if new := clean.complaints() - complaints_before:
        raise DevError("with the wheel installed, airflow commands print:\n" + "\n".join(sorted(new)))
    _check_config_section(clean)
    clean.airflow("dispatch", "--help")
    listed = clean.executors()
    for name in _ALWAYS:
        if not any(path.endswith(f".{name}") for path in listed):
            raise DevError(f"`airflow providers executors` lists {sorted(listed)}, but no {name}")
    _check_loading(clean, listed)


def _check_config_section(clean: Installation) -> None:
    listed = clean.airflow("config", "list", "--include-descriptions").stdout
    for expected in ("[dispatch]", "backends", "routes", "config_file"):
        if expected not in listed:
            raise DevError(f"`airflow config list` does not show {expected}")


def _check_with_extras(clean: Installation) -> None:
    _concurrently(partial(clean.airflow, group, "--help") for group in ("celery", "kubernetes", "dispatch"))
    _check_loading(clean, _declared_executors(clean))


def _declared_executors(clean: Installation) -> list[str]:
    code = f"import json, {_PACKAGE}.get_provider_info as m; print(json.dumps(m.get_provider_info()['executors']))"
    return list(json.loads(clean.python("-c", code).stdout))


def _check_loading(clean: Installation, paths: Iterable[str]) -> None:
    """By module path, by ``alias:path`` and by class name, as ``[core] executor`` and Dags may name them."""
    _concurrently(
        partial(clean.python, "-c", _LOAD, path, name, AIRFLOW__CORE__EXECUTOR=entry, **_DISPATCH_SETTINGS)
        for path in sorted(paths)
        for entry, name in ((path, path), (f"ours:{path}", "ours"), (path, path.rpartition(".")[2]))
    )


def _concurrently(calls: Iterable[Callable[[], T]]) -> list[T]:
    """The results in order, or what the first of them raises: each is a process that keeps a core busy for seconds."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


_DISPATCH_SETTINGS = {
    "AIRFLOW__DISPATCH__BACKENDS": json.dumps({"local": {"executor": "LocalExecutor", "slots": 2}}),
    "AIRFLOW__DISPATCH__DEFAULT": "local",
}


if __name__ == "__main__":
    run(main)
