# SPDX-License-Identifier: Apache-2.0
"""Answers about a deployment that does not exist, in place of ``LiveAnswers``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_dispatch_provider.operate.model import (
    BackendState,
    BackendStatus,
    Forecast,
    GivenOrder,
    Minute,
    OrderInForce,
    RunningOfTeams,
    RunningTask,
    SchedulerStatus,
    Status,
    WaitingGroup,
    WaitingOfTeams,
    WaitingTask,
)
from airflow_dispatch_provider.operate.orders import TAKES_WORK, UnknownBackend
from airflow_dispatch_provider.operate.past import Change, StoryStep, TaskStory
from airflow_dispatch_provider.operate.story import NoSuchTask
from airflow_dispatch_provider.settings.source import SettingsSource

NASTY = "<img src=x onerror=\"document.title='hacked'\"> & 'quoted' \"twice\"\nsecond line " + "n" * 180
"""A task's name that must be shown as text; 250 characters."""

NASTY = NASTY[:250]

ROUTING: dict[str, Any] = {
    "backends": {
        "celery": {"executor": "CeleryExecutor", "slots": 16},
        "gpu": {"executor": "KubernetesExecutor", "slots": 4},
        "local": {"executor": "LocalExecutor", "slots": 8},
    },
    "routes": [
        {"queue": "gpu", "to": ["gpu"]},
        {"queue": "burst-*", "to": ["celery", "local"], "overflow_after": 30},
    ],
    "default": "celery",
}


def now() -> datetime:
    return datetime.now(UTC)


def backend(name: str, **fields: Any) -> BackendStatus:
    """A backend in good health, with these differences."""
    at = now()
    values: dict[str, Any] = {
        "team": None,
        "executor": "LocalExecutor",
        "state": BackendState.OPEN,
        "since": at - timedelta(hours=5),
        "slots": 8,
        "used": 3,
        "ahead": 0,
        "free": 5,
        "held": 0,
        "oldest": None,
        "submitted_per_minute": 12,
        "ended_per_minute": 11,
        "trouble": None,
        "next_try": None,
        "order": None,
        "minutes": [
            Minute(at - timedelta(minutes=30 - index), 5 + index % 7, 4 + index % 5) for index in range(30)
        ],
        **fields,
    }
    return BackendStatus(name=name, **values)


def scheduler(name: str, **fields: Any) -> SchedulerStatus:
    at = now()
    values: dict[str, Any] = {
        "hostname": f"{name}.example.com",
        "team": None,
        "executor": "DispatchExecutor",
        "lives": True,
        "written": at,
        "heartbeat": at - timedelta(seconds=2),
        "file": "/etc/dispatch/routing.yaml",
        "refused": None,
        "api_trouble": None,
        **fields,
    }
    return SchedulerStatus(id=name, **values)


def waiting_task(dag_id: str, task_id: str, **fields: Any) -> WaitingTask:
    """A task that waits for the backend ``gpu``."""
    at = now()
    values: dict[str, Any] = {
        "run_id": "manual__2026-01-01",
        "map_index": -1,
        "try_number": 1,
        "kind": "ExecuteTask",
        "queue": "gpu",
        "team": None,
        "route": "gpu",
        "targets": ["gpu"],
        "reason": "waits_full",
        "words": "every target that it may use is full",
        "detail": None,
        "since": at - timedelta(minutes=12),
        "position": 1,
        "expected": at + timedelta(minutes=3),
        "others": False,
        "scheduler": "one",
        "usual": 240.0,
        **fields,
    }
    return WaitingTask(dag_id=dag_id, task_id=task_id, **values)


def running_task(dag_id: str, task_id: str, **fields: Any) -> RunningTask:
    values: dict[str, Any] = {
        "backend": "gpu",
        "team": None,
        "run_id": "scheduled__2026-01-01",
        "map_index": -1,
        "try_number": 1,
        "kind": "ExecuteTask",
        "queue": "gpu",
        "has_begun": True,
        "since": now() - timedelta(minutes=50),
        "scheduler": "one",
        **fields,
    }
    return RunningTask(dag_id=dag_id, task_id=task_id, **values)


def group(name: str, held: int, **fields: Any) -> WaitingGroup:
    values: dict[str, Any] = {
        "team": None,
        "reason": "waits_full",
        "words": "every target that it may use is full",
        "detail": None,
        "oldest": now() - timedelta(minutes=12),
        **fields,
    }
    return WaitingGroup(backend=name, held=held, **values)


class FakeAnswers:
    """A deployment with three backends, one of which fails, and tasks that wait for another."""

    def __init__(
        self, held: int = 42, shown: int = 5, dags: tuple[str, ...] = ("billing", "reports")
    ) -> None:
        """
        :param held: tasks that wait
        :param shown: as many of them have names
        """
        self.orders: list[tuple[Any, ...]] = []
        self.in_force: dict[str, OrderInForce] = {}
        self.asked: list[str] = []
        self.held, self.shown, self.dags = held, shown, dags
        self.routing: dict[str, Any] = ROUTING
        self.teams: list[BackendStatus] = []

    def status(self) -> Status:
        self.asked.append("status")
        trouble = "the broker redis://broker:6379/0 refuses connections (ConnectionRefusedError)"
        backends = [
            backend(
                "celery",
                executor="CeleryExecutor",
                slots=16,
                used=0,
                free=0,
                state=BackendState.FAILING,
                since=now() - timedelta(minutes=4),
                trouble=trouble,
                next_try=now() + timedelta(seconds=25),
                submitted_per_minute=0,
                ended_per_minute=0,
            ),
            backend(
                "gpu",
                executor="KubernetesExecutor",
                slots=10_000,
                used=10_000,
                ahead=16,
                free=0,
                held=self.held,
                oldest=now() - timedelta(minutes=12),
                dags={self.dags[0]: 9000, NASTY: 600, "not_readable": 400},
            ),
            backend("local"),
            *self.teams,
        ]
        schedulers = [
            scheduler("one"),
            scheduler("two", lives=False, refused="routes[0].to: names no backend."),
        ]
        return Status(now(), schedulers, [self._ordered(each) for each in backends])

    def _ordered(self, each: BackendStatus) -> BackendStatus:
        order = self.in_force.get(each.name)
        if order is None:
            return each
        state = BackendState.CORDONED if order.command == "cordon" else BackendState.DRAINING
        if each.state is BackendState.FAILING:
            return replace(each, order=order)
        return replace(each, state=state, since=order.since, order=order)

    def waiting(self, backend: str | None, reason: str | None, dag_id: str | None) -> WaitingOfTeams:
        self.asked.append("waiting")
        if backend not in (None, "gpu") or reason not in (None, "waits_full"):
            return WaitingOfTeams(now(), {}, [], [])
        names = [NASTY, *(f"train_{index}" for index in range(1, self.shown))]
        tasks = [
            waiting_task(
                self.dags[index % len(self.dags)],
                name,
                position=index + 1,
                map_index=index if index % 2 else -1,
            )
            for index, name in enumerate(names)
        ]
        tasks.append(waiting_task("not_readable", "secret_task"))
        found = [task for task in tasks if dag_id in (None, task.dag_id)]
        return WaitingOfTeams(now(), {None: self.held}, [group("gpu", self.held)], found)

    def usual(self, tasks: list[WaitingTask]) -> list[WaitingTask]:
        return tasks

    def running(self, backend: str | None, dag_id: str | None) -> RunningOfTeams:
        self.asked.append("running")
        if backend not in (None, "gpu"):
            return RunningOfTeams(now(), {None: 0}, [])
        tasks = [
            running_task(self.dags[0], NASTY),
            running_task(self.dags[0], "train_gpu", has_begun=False),
            running_task("not_readable", "secret_task"),
        ]
        named = [task for task in tasks if dag_id in (None, task.dag_id)]
        return RunningOfTeams(now(), {None: 10_016, "red": 4}, named)

    def forecast(self, backend: str, team: str | None) -> Forecast:
        self.asked.append("forecast")
        found = next((each for each in self.status().backends if each.name == backend), None)
        if found is None:
            raise UnknownBackend(f"There is no backend {backend!r}. Known: celery, gpu, local.")
        elsewhere = {"local": found.held - 2} if found.held > 2 else {}
        stay = found.held - sum(elsewhere.values())
        order, has = self.in_force.get(backend), found.used + found.ahead
        return Forecast(
            now(),
            backend,
            team,
            has,
            16,
            found.held,
            elsewhere,
            stay,
            order=order,
            is_cordoned=order is not None,
        )

    def changes(self, since: datetime, concerns: Callable[[str | None], bool]) -> list[Change]:
        self.asked.append("changes")
        file = "/opt/airflow/config/dispatch.yaml is in use: routes[0].to: celery is now gpu"
        every = [
            Change(
                now() - timedelta(minutes=3),
                "dispatch_drain",
                "drain local: new nodes",
                "ann",
                "local",
                None,
                None,
            ),
            Change(
                now() - timedelta(hours=2), "config_file_changed", file, None, None, None, "one.example.com"
            ),
            Change(
                now() - timedelta(hours=3), "dispatch_cordon", "cordon secret", "bob", "secret", "red", None
            ),
        ]
        return [change for change in every if concerns(change.team)]

    def story(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        try_number: int | None,
        with_audit_log: bool,
    ) -> TaskStory:
        self.asked.append("story")
        if task_id == "gone":
            raise NoSuchTask("Run 'r' of Dag 'billing' has no task 'gone'.")
        at = now() - timedelta(minutes=12)
        steps = [
            StoryStep(at, "queued", "queued by the scheduler"),
            StoryStep(at + timedelta(seconds=1), "waits_full", "every target that it may use is full", "gpu"),
        ]
        if with_audit_log:
            steps.append(StoryStep(at, "clear", "clear by ann"))
        waits = waiting_task(dag_id, task_id, run_id=run_id, map_index=map_index, position=7)
        return TaskStory(dag_id, task_id, run_id, map_index, try_number or 2, "queued", steps, waits)

    def order(
        self, command: str, backend: str, team: str | None, by: str, reason: str, seconds: float | None
    ) -> GivenOrder | None:
        self.orders.append((command, backend, team, by, reason, seconds))
        if backend not in {each.name for each in self.status().backends}:
            raise UnknownBackend(f"There is no backend {backend!r}. Known: celery, gpu, local.")
        until = None if seconds is None else now() + timedelta(seconds=seconds)
        given = OrderInForce(command, backend, team, by, reason, now(), until)
        if command == "recall":
            return GivenOrder(**vars(given), warning=None if backend in self.in_force else TAKES_WORK)
        before = self.in_force.pop(backend, None)
        if command == "resume":
            return None if before is None else GivenOrder(**vars(before))
        self.in_force[backend] = given
        return GivenOrder(**vars(given), replaces=before)

    def settings(self, team: str | None) -> SettingsSource:
        return SettingsSource(_Options(self.routing))


class _Options:
    """``[dispatch]`` with these values."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def get(self, section: str, key: str, *, fallback: Any = None) -> Any:
        value = self._values.get(key)
        return fallback if value is None else value if isinstance(value, str) else json.dumps(value)
