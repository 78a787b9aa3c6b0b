# SPDX-License-Identifier: Apache-2.0
"""Fixes that are taken out of the package again, for the simulation to find: see ``reverted_fixes.toml``.

A fix is taken out of a copy of the package, and a process of its own runs worlds with that copy. A violation counts
where today's code has none in the same world.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from devkit.environment import DEV, REPO, DevError
from devkit.tables import table

if TYPE_CHECKING:
    from airflow_dispatch_provider.simulation.world import Shape

PACKAGE = "airflow_dispatch_provider"
FILE = DEV / "reverted_fixes.toml"
_GRACE = 120.0
"""Seconds of real time for imports and for the world in which the minutes end."""


class Replacement(NamedTuple):
    """Code that holds a fix today, and the same text without it."""

    file: str
    """Below the package."""

    old: str
    new: str


class Fix(NamedTuple):
    """One that the history has."""

    name: str
    kind: str
    """K1 to K8: the kinds of faults for which the life cycle was written anew; else the commit that mended it."""

    was: str
    """The fault, in a sentence."""

    holds: tuple[Replacement, ...]
    """Where it is held today."""


class Tried(NamedTuple):
    """A fix that was taken out, and what came of that."""

    fix: Fix
    violation: str | None
    """None: the worlds did not notice."""

    seed: int
    """Of the last world."""

    worlds: int
    faults: int
    seconds: float
    """Of real time, for the worlds alone."""

    as_today: int
    """Violations that today's code has, too, and that do not count."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        given = self._asdict()
        del given["fix"]
        return {"name": self.fix.name, "kind": self.fix.kind, "was": self.fix.was, **given}


@dataclass(frozen=True)
class Plan:
    """Which worlds are run, and for how long."""

    seed: int
    seconds: float
    """Of each world, virtual."""

    minutes: float
    """Of real time."""

    shape: Mapping[str, Any] | None = None
    """None: each world has another one."""


def fixes(words: str = "", file: Path = FILE) -> list[Fix]:
    """Those whose name, kind or fault has these words."""
    found = [
        Fix(
            each["name"],
            each["kind"],
            each["was"],
            tuple(Replacement(one["file"], one["old"], one["new"]) for one in each["holds"]),
        )
        for each in tomllib.loads(file.read_text())["fix"]
    ]
    return [fix for fix in found if any(words in text for text in fix[:3])]


def revert(fix: Fix, package: Path) -> None:
    """Take a fix out of a package.

    :raises DevError: what holds it is not there exactly once
    """
    for file, old, new in fix.holds:
        path = package / file
        text = path.read_text()
        if text.count(old) != 1:
            raise DevError(f"{fix.name}: {file} has this {text.count(old)} times, not once:\n{old}")
        path.write_text(text.replace(old, new))


def try_all(found: Iterable[Fix], plan: Plan) -> Iterator[Tried]:
    """Take out each in turn, and run worlds until one goes wrong."""
    for fix in found:
        with tempfile.TemporaryDirectory(prefix="dispatch-reverted-") as folder:
            package = Path(folder) / PACKAGE
            shutil.copytree(REPO / PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
            revert(fix, package)
            yield _try(fix, package.parent, plan)


def _try(fix: Fix, folder: Path, plan: Plan) -> Tried:
    worlds, faults, seconds, as_today, seed = 0, 0, 0.0, 0, plan.seed
    while True:
        left = plan.minutes - seconds / 60
        ran = _run(fix, folder, Plan(seed, plan.seconds, left, plan.shape))
        worlds, faults, seconds = worlds + ran["worlds"], faults + ran["faults"], seconds + ran["seconds"]
        seed, violation = ran["seed"], ran["violation"]
        if violation is None or not _goes_wrong_today(seed, plan):
            return Tried(fix, violation, seed, worlds, faults, round(seconds, 1), as_today)
        as_today, seed = as_today + 1, seed + 1
        if seconds >= plan.minutes * 60:
            return Tried(fix, None, seed, worlds, faults, round(seconds, 1), as_today)


def _run(fix: Fix, folder: Path, plan: Plan) -> dict[str, Any]:
    """Worlds with the package in a folder, in a process of their own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(DEV)])}
    command = [sys.executable, "-m", "devkit.reverted", str(folder), json.dumps(asdict(plan))]
    try:
        done = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, text=True, timeout=plan.minutes * 60 + _GRACE
        )
    except subprocess.TimeoutExpired as error:
        raise DevError(f"{fix.name}: a world from --seed {plan.seed} on does not end.") from error
    if done.returncode:
        raise DevError(f"{fix.name}: no worlds can be run. {done.stderr[-2000:]}")
    ran: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return ran


def shape_of(given: Mapping[str, Any] | None) -> Shape | None:
    """
    :param given: what differs from the defaults; None: each world has another shape
    """
    from airflow_dispatch_provider.simulation.world import Shape

    return None if given is None else Shape(**given)


def _goes_wrong_today(seed: int, plan: Plan) -> bool:
    from airflow_dispatch_provider.simulation.scenario import Scenario

    scenario = next(Scenario.following(seed, shape_of(plan.shape), plan.seconds))
    return scenario.run().violation is not None


def lines(tried: Iterable[Tried]) -> list[str]:
    """A table, and how many were found."""
    rows = [
        (
            each.fix.name,
            each.fix.kind,
            "missed" if each.violation is None else each.violation,
            each.worlds,
            each.faults,
            each.seconds,
        )
        for each in tried
    ]
    found = sum(row[2] != "missed" for row in rows)
    headers = ("reverted fix", "kind", "found", "worlds", "faults", "seconds")
    return [*table(headers, rows, {"seconds": ".1f"}), f"{found} of {len(rows)} found"]


def keep_quiet() -> None:
    """Before the package is imported: what Airflow says then would be in the output."""
    os.environ.setdefault("AIRFLOW__API_AUTH__JWT_SECRET", "simulation")


def worlds(folder: Path, plan: Plan) -> dict[str, Any]:
    """Run in a process of its own, with the package in a folder."""
    keep_quiet()
    import airflow_dispatch_provider
    from airflow_dispatch_provider.simulation.report import Report, simulate

    imported = Path(airflow_dispatch_provider.__file__ or "").parent
    if imported != folder / PACKAGE:
        raise DevError(f"{imported} was imported, not the copy in {folder}")
    logging.disable(logging.CRITICAL)
    began = time.monotonic()

    def goes_on(report: Report) -> bool:
        return time.monotonic() - began < plan.minutes * 60

    report = simulate(plan.seed, plan.seconds, shape_of(plan.shape), goes_on)
    wrong = None if report.wrong is None else report.wrong.violation
    return {
        "worlds": report.worlds,
        "faults": report.faults.total(),
        "seconds": time.monotonic() - began,
        "seed": report.seed,
        "violation": None if wrong is None else wrong.kind,
    }


if __name__ == "__main__":
    print(json.dumps(worlds(Path(sys.argv[1]), Plan(**json.loads(sys.argv[2])))))
