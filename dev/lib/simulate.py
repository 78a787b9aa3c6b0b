# SPDX-License-Identifier: Apache-2.0
"""The real life cycle and dispatch loop in virtual time, under faults, between models of Airflow and of backends.

Each world has its own seed, and the same seed tells the same story. What must hold is checked at every step: no try is
lost that had not begun, no run completes twice, nothing is killed that runs, and once faults stop everything ends with
no slot taken. The exit code is 1 when something did not hold, with the seed and the story of the task.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from random import randrange

from environment import add_airflow_version, enter, run


def main() -> int:
    options = _parse()
    enter(options.airflow_version)
    # Not before: this is Airflow's environment.
    from airflow_dispatch_provider.simulation.report import Report, simulate
    from airflow_dispatch_provider.simulation.world import Shape

    logging.disable(logging.CRITICAL)
    began = said = time.monotonic()

    def goes_on(report: Report) -> bool:
        nonlocal said
        now = time.monotonic()
        if now - said >= 5:
            said = now
            text = f"{report.worlds} worlds, {report.faults.total()} faults, seed {report.seed}"
            print(f"{now - began:7.0f} s: {text}", file=sys.stderr, flush=True)
        return options.forever or report.faults.total() < options.faults

    shape = Shape(schedulers=options.schedulers, fault_every=options.fault_every)
    print(f"--seed {options.seed}", file=sys.stderr, flush=True)
    report = simulate(options.seed, options.seconds, shape, goes_on)
    if options.output == "json":
        print(json.dumps(report.as_dict(), indent=2))
    else:
        print("\n".join(report.lines()))
    return 0 if report.violation is None else 1


def positive(text: str) -> int:
    """For argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


positive.__name__ = "number of 1 or more"  # what argparse says was expected


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev/simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_airflow_version(parser)
    add("--seed", type=int, default=randrange(10**6), help="of the first world (default: random)")
    add("--faults", type=positive, default=1000, metavar="N", help="in all worlds (default: %(default)s)")
    add("--forever", action="store_true", help="go on until something does not hold, or Ctrl-C")
    add(
        "--seconds",
        type=float,
        default=3600,
        help="simulated in each world, with faults (default: %(default)s)",
    )
    add("--schedulers", type=positive, default=2, metavar="N", help="default: %(default)s")
    add(
        "--fault-every",
        type=float,
        default=30,
        metavar="SECONDS",
        help="simulated, on average (default: %(default)s)",
    )
    add("--output", choices=("table", "json"), default="table", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
