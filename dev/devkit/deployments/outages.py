# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow to be broken on purpose: what was out of order and when, and what its tasks and schedulers wrote."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.process import ServerProcess

COMPONENTS = ("api-server", "scheduler", "dag-processor")
ROUTER = "devkit.deployments.timed_executor.TimedDispatchExecutor"

Wait = Callable[[float], None]
"""Called for the seconds that an outage has to last."""

Beats = list[tuple[float, float, int]]
"""Of one scheduler, in order: when a heartbeat began, its milliseconds, and slots taken after it."""


@dataclass(frozen=True)
class Outage:
    """Something that was out of order, and when (seconds since 1970)."""

    kind: str
    began: float
    ended: float


@dataclass
class Outages:
    """Those that were."""

    found: list[Outage] = field(default_factory=list)

    @contextmanager
    def note(self, kind: str) -> Iterator[None]:
        began = time.time()
        yield
        self.found.append(Outage(kind, began, time.time()))


class Deployment:
    """Airflow with one Dag, in a home folder with what its tasks and schedulers write beside that.

    :param dag: source of the Dag
    """

    def __init__(
        self, home: Path, database: str, env: Mapping[str, str], dag_id: str, dag: str, wait: Wait
    ) -> None:
        self.outages = Outages()
        self.dag_id = dag_id
        self.wait = wait
        self.records, self.modules, self._heartbeats = (
            home / name for name in ("records", "modules", "heartbeats")
        )
        for folder in (self.records, self.modules, self._heartbeats):
            folder.mkdir(parents=True)
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.modules), os.environ.get("PYTHONPATH")])),
            "CHAOS_RECORDS": str(self.records),
            "CHAOS_HEARTBEATS": str(self._heartbeats),
        }
        self.airflow = AirflowCluster(home, {**own, **env}, database, COMPONENTS)
        (self.airflow.dags / f"{dag_id}.py").write_text(dag)

    def are_ready(self, workers: Sequence[str]) -> bool:
        """Whether all of these have ever been connected to their brokers."""
        return all(" ready." in self.airflow.log(name).read_text(errors="replace") for name in workers)

    def kill_server(self, kind: str, server: ServerProcess, seconds: float, empty: bool = False) -> None:
        """SIGKILL, and a new start with its data or without.

        :param kind: of the outage, in words
        """
        with self.outages.note(kind):
            server.kill()
            self.wait(seconds)
            server.restart(empty)

    def kill_scheduler(self, seconds: float) -> None:
        """Until the heartbeat of the next one; it adopts tasks later."""
        with self.outages.note("scheduler killed"):
            before = len(self.beats())
            self.airflow.kill_scheduler()
            self.wait(seconds)
            self.airflow.start_scheduler()
            while len(self.beats()) == before:
                self.wait(0.5)

    def revive(self) -> None:
        """Start again what may end by itself, and has: here nothing."""

    def restart_if_ended(
        self, name: str, clear: Callable[[str], object], start: Callable[[str], object]
    ) -> None:
        """:param clear: takes away what is left of it"""
        if self.airflow.has_ended(name):
            with self.outages.note(f"{name} ended by itself"):
                clear(name)
                start(name)

    def traces(self, ending: str) -> Iterator[tuple[Path, list[str]]]:
        """Files that the tasks wrote, and the words of their names; the first is the number of the task.

        :param ending: ``start`` or ``end``
        """
        for path in self.records.glob(f"*.{ending}"):
            yield path, path.name.split(".")

    def ended(self) -> int:
        """How many tasks have run to the end of their function."""
        return len({words[0] for _, words in self.traces("end")})

    def beats(self) -> list[Beats]:
        """Of each scheduler that runs the router."""
        found = map(_beats_in, self._heartbeats.glob("*.txt"))
        return sorted(beats for beats in found if beats)

    def beats_of(self, pid: int) -> Beats:
        """Of one process; none where it has not sent any."""
        path = self._heartbeats / f"{pid}.txt"
        return _beats_in(path) if path.exists() else []


def _beats_in(path: Path) -> Beats:
    rows = (line.split() for line in path.read_text().splitlines())
    return [(float(row[0]), float(row[1]), int(row[2])) for row in rows if len(row) == 3]
