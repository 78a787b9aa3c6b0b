# SPDX-License-Identifier: Apache-2.0
"""Short ways to write held work and backends."""

from __future__ import annotations

from airflow_dispatch_provider.routing.decide import decide
from airflow_dispatch_provider.routing.hold import HoldQueue
from airflow_dispatch_provider.routing.model import EXECUTE_TASK, BackendView, Held, Route, Snapshot, Target
from airflow_dispatch_provider.routing.routes import Match


def match(*backends, overflow_after=0.0, name=None):
    route = Route(
        queue=name or "+".join(backends),
        to=tuple(Target(backend=backend) for backend in backends),
        overflow_after=overflow_after,
    )
    return Match(route.name, route)


class Waiting:
    """A hold queue that is filled in order of arrival; the key of each workload is the name given."""

    def __init__(self):
        self.queue = HoldQueue()
        self.count = 0

    def add(self, key, where, priority=1, since=0.0, kind=EXECUTE_TASK):
        self.count += 1
        self.queue.add(Held(key, priority, since, self.count, kind=kind), where, where.route.to)
        return self

    def decide(self, now=0.0, **backends):
        """Decisions, as (key, backend, reason); a number stands for a backend with so many slots."""
        views = {
            name: BackendView(view) if isinstance(view, int) else view for name, view in backends.items()
        }
        decisions = decide(Snapshot(now, views), self.queue.lanes)
        return [(each.held.key, each.target.backend, str(each.reason)) for each in decisions]
