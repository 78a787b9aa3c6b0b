# SPDX-License-Identifier: Apache-2.0
"""
The start of a task, part by part: Airflow's LocalExecutor, this package's, and the latter with warm Dag templates.

Each subject runs real tasks, with Airflow's supervisor and task runner and a real Dag file, in fresh processes and in
turn. A server that answers at once stands in for the Execution API, so that its own work is not in the figures, and
there is no scheduler: `./dev/bench end-to-end` has both. Heartbeats follow each other after 2 ms.

cases:
  1, 50, 400   one task after the other, of a Dag file with so many tasks
  pandas       the same, of a Dag file with 50 tasks that imports pandas, where that is installed
  mapped       all instances of one mapped task at once, over 8 slots
  memory       32 tasks run at a time

What the rows say, medians over the tasks of a run, ms:
  ... to supervisor   from queue_workload() until Airflow's supervisor starts
  ... fork            the supervisor makes the task's process
  ... API answer      the supervisor asks whether the task may start
  ... before parse    the task's process is told what to run, and prepares it
  ... parse           the Dag file, and the bundle that it is in
  ... before line     the task's context, templates, what is to be done before the user's code
  ... first line      all of these together
  ... over            from the first line until the executor reports the end
  ... CPU parse, CPU task, CPU supervisor
                      what the task's process uses for the parse, what it uses in all, and what its supervisor does
  ... CPU a task      what all processes of the executor use, with their forks, divided by the tasks
  parses              how often the Dag file is parsed
  PSS, private        of all processes of the executor, divided by the tasks that run, MiB
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module, util
from pathlib import Path
from typing import Any

import psutil

from devkit.bench import start_marks
from devkit.bench.comparison import Figures, benchmark_parser, in_turn, lines, summary
from devkit.bench.local import is_ready, make_task, wait_for
from devkit.bench.start_marks import Mark, keep_in, marks, note_starts
from devkit.environment import say

SUBJECTS = ("airflow", "local", "warm")
CASES = ("1", "50", "400", "pandas", "mapped", "memory")
ROWS = {
    "supervisor": "... to supervisor, ms",
    "fork": "... fork, ms",
    "answer": "... API answer, ms",
    "before parse": "... before parse, ms",
    "parse": "... parse, ms",
    "before line": "... before line, ms",
    "first line": "... first line, ms",
    "over": "... over, ms",
    "cpu parse": "... CPU parse, ms",
    "cpu task": "... CPU task, ms",
    "cpu supervisor": "... CPU supervisor, ms",
    "cpu": "... CPU a task, ms",
    "rate": "tasks a second",
    "parses": "parses",
    "pss": "PSS a running task, MiB",
    "private": "private a running task, MiB",
}
STEPS = {
    "supervisor": start_marks.SUPERVISED,
    "fork": start_marks.ASKED,
    "answer": start_marks.ANSWERED,
    "before parse": start_marks.PARSES,
    "parse": start_marks.PARSED,
    "before line": start_marks.FIRST_LINE,
}
"""Parts of a start, in their order, with the mark at the end of each."""

BEFOREHAND = 3
"""Tasks of each case that run before the measured ones, whatever they are good for."""

MAPPED_SLOTS = 8
RUNNING = 32
DAG = """
{imports}
import time

from airflow.sdk import dag, task
from devkit.bench.start_marks import FILE_READ, FIRST_LINE, mark

mark(FILE_READ)

@task
def begin(seconds, index=None):
    mark(FIRST_LINE)
    time.sleep(seconds)

@dag(schedule=None, catchup=False, dag_id="starts")
def starts():
    for index in range({number}):
        begin.override(task_id=f"t{{index:03}}")(0)
    begin.override(task_id="mapped").partial(seconds=0).expand(index=list(range({mapped})))
    begin.override(task_id="sleeps")(600)

starts()
"""


class Bench:
    """One executor, in this process, and tasks of a Dag file for it."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        executor.start()
        wait_for(lambda: is_ready(executor))

    def queue(self, task_id: str, map_index: int = -1) -> None:
        task = make_task()
        named = {"task_id": task_id, "dag_id": "starts", "map_index": map_index, "run_id": str(uuid.uuid4())}
        fields = {"ti": task.ti.model_copy(update=named), "dag_rel_path": Path("starts.py")}
        fields["log_path"] = f"{uuid.uuid4()}.log"
        self._executor.queue_workload(task.model_copy(update=fields), None)

    def ended(self) -> int:
        """How many have ended since the last call."""
        self._executor.heartbeat()
        states = [state for state, _ in self._executor.get_event_buffer().values()]
        if "failed" in states:
            raise RuntimeError("a task could not be run")
        return sum(state == "success" for state in states)

    def run(self, task_id: str) -> dict[str, float]:
        """Run one task alone, and take its start apart."""
        before, queued = len(marks()), time.time()
        self.queue(task_id)
        wait_for(self.ended, pause=0.002)
        return parts(queued, marks()[before:], time.time())

    def run_all(self, task_id: str, indexes: Sequence[int]) -> None:
        for index in indexes:
            self.queue(task_id, index)
        left = len(indexes)
        while left:
            left -= self.ended()
            time.sleep(0.002)

    @staticmethod
    def kill() -> None:
        """End the executor's processes, whatever runs in them."""
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()


def parts(queued: float, made: Sequence[Mark], ended: float) -> dict[str, float]:
    """The parts of one task's start, ms; ``made`` are the marks of this task and of nothing else that runs tasks."""
    task = next(mark.pid for mark in made if mark.name == start_marks.FIRST_LINE)
    supervisor = next(mark.pid for mark in made if mark.name == start_marks.OVER)
    at = {mark.name: mark for mark in made if mark.pid in (task, supervisor)}
    found, last = {}, queued
    for name, reached in STEPS.items():
        found[name], last = at[reached].when - last, at[reached].when
    found["first line"], found["over"] = last - queued, ended - last
    found["cpu parse"] = at[start_marks.PARSED].cpu - at[start_marks.PARSES].cpu
    found["cpu task"] = at[start_marks.TASK_OVER].cpu
    found["cpu supervisor"] = at[start_marks.OVER].cpu - at[start_marks.SUPERVISED].cpu
    return {name: seconds * 1e3 for name, seconds in found.items()}


def cpu_of_children() -> float:
    """Seconds that the processes below this one have used, and those of their children that have ended."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


def measure_starts(bench: Bench, number: int, options: argparse.Namespace) -> Figures:
    names = [f"t{index % number:03}" for index in range(options.tasks)]
    before, begin = cpu_of_children(), time.perf_counter()
    found = [bench.run(name) for name in names]
    seconds, used = time.perf_counter() - begin, cpu_of_children() - before
    medians = {row: statistics.median(each[row] for each in found) for row in found[0]}
    return {**medians, "cpu": used / len(names) * 1e3, "rate": len(names) / seconds}


def measure_mapped(bench: Bench, options: argparse.Namespace) -> Figures:
    before, begin, known = cpu_of_children(), time.perf_counter(), len(marks())
    bench.run_all("mapped", range(options.mapped))
    seconds, used = time.perf_counter() - begin, cpu_of_children() - before
    made = [mark.name for mark in marks()[known:]]
    if made.count(start_marks.FIRST_LINE) != options.mapped:
        raise RuntimeError("not every task has run once")
    figures = {"cpu": used / options.mapped * 1e3, "rate": options.mapped / seconds}
    return {**figures, "parses": [mark.name for mark in marks()].count(start_marks.FILE_READ)}


def measure_memory(bench: Bench, _options: argparse.Namespace) -> Figures:
    known = len(marks())
    for _ in range(RUNNING):
        bench.queue("sleeps")
    wait_for(partial(_all_run, bench, known), pause=0.01)
    memory = [child.memory_full_info() for child in psutil.Process().children(recursive=True)]
    return {
        "pss": sum(each.pss for each in memory) / RUNNING / 2**20,
        "private": sum(each.uss for each in memory) / RUNNING / 2**20,
    }


def _all_run(bench: Bench, known: int) -> bool:
    bench.ended()
    return [mark.name for mark in marks()[known:]].count(start_marks.FIRST_LINE) == RUNNING


def make_executor(subject: str, slots: int) -> Any:
    if subject == "airflow":
        return import_module("airflow.executors.local_executor").LocalExecutor(slots)
    from airflow_dispatch_provider.executors.local_executor import LocalExecutor
    from devkit.bench.without_database import without_database

    os.environ["AIRFLOW__DISPATCH__LOCAL_WARM_DAGS"] = "4" if subject == "warm" else "0"
    executor = LocalExecutor(slots)
    without_database(executor)
    return executor


def run_one(subject: str, case: str, options: argparse.Namespace) -> Figures:
    """Measure one case of one subject, in this process, which has done nothing before."""
    logging.disable(logging.INFO)
    import airflow.jobs.scheduler_job_runner  # noqa: F401  what a scheduler has in memory

    number = int(case) if case.isdigit() else 50
    home = Path(os.environ["AIRFLOW_HOME"])
    imports = "import pandas" if case == "pandas" else ""
    (home / "dags").mkdir(exist_ok=True)
    (home / "dags/starts.py").write_text(DAG.format(imports=imports, number=number, mapped=options.mapped))
    keep_in(home / "marks")
    note_starts()
    slots = {"mapped": MAPPED_SLOTS, "memory": RUNNING}.get(case, 1)
    measure: Callable[[Bench, argparse.Namespace], Figures]
    measure = {"mapped": measure_mapped, "memory": measure_memory}.get(case) or partial(_starts, number)
    bench = Bench(make_executor(subject, slots))
    try:
        for _ in range(BEFOREHAND if case != "mapped" else 0):
            bench.run("t000")
        return measure(bench, options)
    finally:
        bench.kill()


def _starts(number: int, bench: Bench, options: argparse.Namespace) -> Figures:
    return measure_starts(bench, number, options)


def run_in_fresh_process(
    options: argparse.Namespace, url: str, case: str, subject: str, _run: int
) -> Figures:
    command = [sys.executable, "-m", __spec__.name, "--one", subject, case]
    command += ["--tasks", str(options.tasks), "--mapped", str(options.mapped)]
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as home:
        env = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": f"{home}/dags",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url,
        }
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return dict(json.loads(found.stdout.strip().splitlines()[-1]))


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--tasks", type=int, default=20, help="one after the other (default: %(default)s)")
    parser.add_argument("--mapped", type=int, default=1000, help="mapped instances (default: %(default)s)")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        subject, case = options.one
        print(json.dumps(run_one(subject, case, options)), flush=True)
        os._exit(0)  # its workers are not there to be waited for
    from devkit.servers.execution_api import ExecutionApi

    api = ExecutionApi()
    api.serve()
    results = {}
    for case in options.cases:
        if case == "pandas" and util.find_spec("pandas") is None:
            say("pandas is not installed: that case is left out")
            continue
        measure = partial(run_in_fresh_process, options, api.url, case)
        results[case] = in_turn(options.subjects, options.runs, ROWS, measure, f"{case}: ")
    api.close()
    show(results, options.output)


def show(results: dict[str, dict[str, list[Figures]]], output: str) -> None:
    if output == "json":
        figures = {
            case: {subject: _summaries(runs) for subject, runs in found.items()}
            for case, found in results.items()
        }
        print(json.dumps(figures, indent=1))
        return
    for case, found in results.items():
        print(*lines(case, ROWS, found), "", sep="\n")


def _summaries(runs: Sequence[Figures]) -> dict[str, dict[str, float]]:
    return {row: summary([run[row] for run in runs]) for row in runs[0]}


if __name__ == "__main__":
    main()
