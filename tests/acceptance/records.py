# SPDX-License-Identifier: Apache-2.0
"""Records of the tasks of ``recorded_dag``, and where the event log says they ran."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from devkit.deployments.airflow_cluster import AirflowCluster

Span = tuple[float, float]


class Records:
    """The traces of one Dag run."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder = folder / run_id

    @classmethod
    def of(cls, cluster: AirflowCluster, run_id: str) -> Records:
        return cls(Path(cluster.env["DISPATCH_TEST_RECORDS"]), run_id)

    def starts(self) -> Counter[str]:
        """How often each task began."""
        return Counter(path.name.split(".")[0] for path in self.folder.glob("*.start"))

    def completions(self) -> Counter[str]:
        """How often each task ran to its end."""
        return Counter(path.name.split(".")[0] for path in self.folder.glob("*.end"))

    def spans(self) -> dict[str, Span]:
        """Seconds at which each completed task began and ended."""
        spans = {}
        for path in self.folder.glob("*.end"):
            start, end = map(float, path.read_text().split())
            spans[path.name.split(".")[0]] = (start, end)
        return spans

    def release(self) -> None:
        """Let the waiting tasks end."""
        (self.folder / "release").touch()


def backends_of(rows: Iterable[dict[str, str]], run_id: str) -> dict[str, list[str]]:
    """The backends to which each task was dispatched, in order, by the event log's rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["run_id"] == run_id:
            found.setdefault(row["task_id"], []).append(json.loads(row["extra"])["backend"])
    return found


def most_at_once(spans: Iterable[Span]) -> int:
    """The largest number of spans that overlap."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    running = most = 0
    for _, change in edges:
        running += change
        most = max(most, running)
    return most
