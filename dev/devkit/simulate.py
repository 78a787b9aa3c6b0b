# SPDX-License-Identifier: Apache-2.0
"""The real life cycle, dispatch loop and engines in virtual time, under faults, between models of Airflow, of brokers,
clusters, machines and executors of others.

Each world has its own seed, and the same seed tells the same story. What must hold is checked at every step: no try is
lost that had not begun, no run completes twice, nothing is killed that runs, and once faults stop everything ends with
no slot taken. The summary names the rows of the table of transitions that no world took.

The exit code is 1 when something did not hold. Faults are then left out as long as that still happens; what is left is
printed with the story of the task, and written to a file from which --replay runs it again.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import subprocess
import time
from pathlib import Path
from random import randrange
from typing import TYPE_CHECKING, Any

from devkit.arguments import add_airflow_version, add_output, parser_of
from devkit.environment import REPO, DevError, enter, say
from devkit.reverted import FILE, Plan, fixes, keep_quiet, lines, shape_of, try_all

if TYPE_CHECKING:
    from airflow_dispatch_provider.simulation.report import Report
    from airflow_dispatch_provider.simulation.scenario import Outcome, Scenario

REVERTED_MINUTES = 10.0
"""For each fix."""


def main() -> int:
    options = _parse()
    enter(options.airflow_version)
    keep_quiet()
    # Not before: this is Airflow's environment.
    from airflow_dispatch_provider.simulation.report import simulate

    logging.disable(logging.CRITICAL)
    if options.mutants is not None:
        return _mutants(options)
    if options.reverted is not None:
        return _reverted(options)
    if options.replay is not None:
        report = _replay(options.replay)
    else:
        progress = Progress()

        # A world is garbage as a whole, at its end; looking for some before that takes a third of the time.
        gc.freeze()
        gc.disable()

        def goes_on(report: Report) -> bool:
            gc.collect()
            done = report.faults.total()
            progress.say(f"{report.worlds} worlds, {done} faults, seed {report.seed}")
            if options.minutes is not None:
                return bool(progress.seconds < options.minutes * 60)
            return bool(options.forever or done < options.faults)

        say(f"--seed {options.seed}")
        report = simulate(options.seed, options.seconds, shape_of(_given(options)), goes_on)
        if report.wrong is not None:
            report.wrong = _shrunk(report.wrong, options.shrink_seconds)
    print(json.dumps(report.as_dict(), indent=2) if options.output == "json" else "\n".join(report.lines()))
    if report.wrong is None:
        return 0
    if options.replay is None:
        _keep(report.wrong, options.keep or Path(f"simulation-{report.seed}.json"))
    return 1


def _given(options: argparse.Namespace) -> dict[str, Any] | None:
    """See ``reverted.shape_of``."""
    given = {"schedulers": options.schedulers, "fault_every": options.fault_every}
    return {name: value for name, value in given.items() if value is not None} or None


class Progress:
    """Says on stderr how far it is, every few seconds."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        if time.monotonic() - self._said >= 5:
            self._said = time.monotonic()
            say(f"{self.seconds:7.0f} s: {text}")


def _mutants(options: argparse.Namespace) -> int:
    from airflow_dispatch_provider.simulation.mutants import HEAD, line, summary, try_all

    say(f"--seed {options.seed}")
    shape = shape_of(_given(options))
    is_table, mutants = options.output == "table", []
    if is_table:
        print(HEAD, flush=True)
    try:
        for mutant in try_all(options.seed, options.seconds, shape, options.faults, options.mutants):
            mutants.append(mutant)
            if is_table:
                print(line(mutant), flush=True)
    except ValueError as error:
        raise DevError(f"{error}\nNo row was left out. Choose another --seed.") from error
    print(summary(mutants) if is_table else json.dumps([each.as_dict() for each in mutants], indent=2))
    return int(options.strict and any(mutant.word == "missed" for mutant in mutants))


def _reverted(options: argparse.Namespace) -> int:
    found = fixes(options.reverted)
    if not found:
        raise DevError(f"No fix in {FILE} has these words: {options.reverted}")
    say(f"--seed {options.seed}")
    minutes = REVERTED_MINUTES if options.minutes is None else options.minutes
    tried = []
    for each in try_all(found, Plan(options.seed, options.seconds, minutes, _given(options))):
        tried.append(each)
        say(
            f"{len(tried)} of {len(found)}: {each.fix.name}: {each.violation or 'missed'} ({each.seconds:.1f} s)"
        )
    print(
        json.dumps([each.as_dict() for each in tried], indent=2)
        if options.output == "json"
        else "\n".join(lines(tried))
    )
    return int(options.strict and any(each.violation is None for each in tried))


def _replay(file: Path) -> Report:
    from airflow_dispatch_provider.simulation.coverage import ALL, counted
    from airflow_dispatch_provider.simulation.report import Report
    from airflow_dispatch_provider.simulation.scenario import Scenario

    try:
        kept = json.loads(file.read_text())
        scenario = Scenario.from_dict(kept)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DevError(f"{file} is no file that ./dev/simulate has written: {error!r}") from error
    if kept.get("commit") != _commit():
        say(f"This is not the code of {kept.get('commit')}, which {file} is about.")
    report = Report()
    report.add(scenario.run(counted(ALL, report.taken)))
    return report


def _shrunk(found: Outcome, seconds: float) -> Outcome:
    from airflow_dispatch_provider.simulation.shrink import shrunk

    progress = Progress()
    say(f"{found.violation}. Leaving out faults, for at most {seconds:.0f} s ...")

    def goes_on(smallest: Scenario) -> bool:
        progress.say(f"{len(smallest.faults)} faults are left")
        return progress.seconds < seconds

    return shrunk(found, goes_on)


def _keep(wrong: Outcome, file: Path) -> None:
    file.write_text(json.dumps({"commit": _commit(), **wrong.as_dict()}, indent=2) + "\n")
    say(f"\nRun these faults again: ./dev/simulate --replay {file}")


def _commit() -> str:
    """Of this checkout; ends in ``-dirty`` where that has changes."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def positive(text: str) -> int:
    """For argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


positive.__name__ = "number of 1 or more"  # what argparse says was expected


def _parse() -> argparse.Namespace:
    parser = parser_of("./dev/simulate", __doc__)
    add = parser.add_argument
    add_airflow_version(parser)
    add("--seed", type=int, default=randrange(10**6), help="of the first world (default: random)")
    add("--faults", type=positive, default=1000, metavar="N", help="in all worlds (default: %(default)s)")
    add("--minutes", type=float, metavar="M", help="go on for so long, however many faults that makes")
    add("--forever", action="store_true", help="go on until something does not hold, or Ctrl-C")
    add(
        "--seconds",
        type=float,
        default=3600,
        help="simulated in each world, with faults (default: %(default)s)",
    )
    add("--schedulers", type=positive, metavar="N", help="2 where only --fault-every is given")
    add(
        "--fault-every",
        type=float,
        metavar="SECONDS",
        help="simulated, on average; 30 where only --schedulers is given. Without both, worlds differ in them",
    )
    add(
        "--shrink-seconds",
        type=float,
        default=60,
        metavar="SECONDS",
        help="for leaving out faults that a violation does not need; 0: leave out none (default: %(default)s)",
    )
    add("--keep", type=Path, metavar="FILE", help="for a violation (default: simulation-SEED.json)")
    add("--replay", type=Path, metavar="FILE", help="run the faults in it once; nothing else counts")
    add(
        "--mutants",
        nargs="?",
        const="",
        metavar="WORDS",
        help="leave out each row of the table of transitions in turn (with WORDS: those that have them), and say which "
        "removals are found within --faults; a row that no world takes is not tried",
    )
    add(
        "--reverted",
        nargs="?",
        const="",
        metavar="WORDS",
        help=f"take each of the fixes in {FILE.relative_to(REPO)} (with WORDS: those that have them) out of a copy of "
        f"the package, and say which are found within --minutes (here {REVERTED_MINUTES:.0f} by default), each in a "
        "process of its own. What today's code does in the same world, too, does not count",
    )
    add(
        "--strict",
        action="store_true",
        help="with --mutants or --reverted: the exit code is 1 when one is missed",
    )
    add_output(parser)
    return parser.parse_args()
