# SPDX-License-Identifier: Apache-2.0
"""The deployment that the pictures in docs/pictures show: a small company at a fixed moment, with a full backend, one
that fails and one that is being drained."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from operate_answers import FakeAnswers, backend, group, scheduler, waiting_task

from airflow_dispatch_provider.operate.model import (
    BackendState,
    BackendStatus,
    Forecast,
    Minute,
    OrderInForce,
    Status,
    WaitingOfTeams,
    WaitingTask,
)
from airflow_dispatch_provider.operate.past import Change, StoryStep, TaskStory

AT = datetime(2026, 3, 10, 9, 30, tzinfo=UTC)
"""The moment at which the pictures are taken."""

DAGS = ("churn_model", "image_search", "nightly_report", "orders_etl")
"""Have to be in the database: names of Dags that nobody may read are not shown."""

RUN = "scheduled__2026-03-10T09:00:00+00:00"

ROUTING: dict[str, Any] = {
    "backends": {
        "celery": {"executor": "CeleryExecutor", "slots": 64},
        "gpu": {"executor": "KubernetesExecutor", "slots": 16},
        "spot": {"executor": "KubernetesExecutor", "slots": 40},
        "small": {"executor": "LocalExecutor", "slots": 8},
    },
    "routes": [
        {"queue": "gpu", "to": ["gpu"]},
        {"queue": "gpu-any", "to": ["gpu", "celery"], "overflow_after": 3600},
        {"queue": "etl-*", "to": ["spot", "celery"], "overflow_after": 30},
        {"queue": "small", "to": ["small"]},
    ],
    "default": "celery",
}

PASTED = """backends:
  celery: {executor: CeleryExecutor, slots: 64}
  gpu: {executor: KubernetesExecutor, slots: 16}
  spot: {executor: KubernetesExecutor, slots: 40}
  small: {executor: LocalExecutor, slots: 8}
routes:
  - {queue: gpu, to: [gpu, celery], overflow_after: 600}
  - {queue: gpu-any, to: [gpu, celery], overflow_after: 3600}
  - {queue: "etl-*", to: [spot, celery], overflow_after: 30}
  - {queue: small, to: [small]}
default: celery
"""
"""A routing file that would let tasks of the queue gpu overflow."""

FULL = "every target that it may use is full"


def ago(**units: float) -> datetime:
    return AT - timedelta(**units)


def _minutes(most: int) -> list[Minute]:
    """Half an hour with some ups and downs, at most so many in a minute."""
    return [
        Minute(ago(minutes=30 - at), most * (5 + at * 7 % 6) // 10, most * (5 + at * 5 % 6) // 10)
        for at in range(30)
    ]


class PictureAnswers(FakeAnswers):
    """Answers about that deployment, whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.routing = ROUTING

    def status(self) -> Status:
        drained = OrderInForce(
            "drain", "small", None, "maria", "new disks", ago(minutes=18), AT + timedelta(hours=3)
        )
        backends = [
            self._backend(
                "celery",
                "CeleryExecutor",
                64,
                58,
                minutes=_minutes(40),
                dags={"orders_etl": 37, "nightly_report": 21},
            ),
            self._backend(
                "gpu",
                "KubernetesExecutor",
                16,
                16,
                held=38,
                oldest=ago(minutes=26),
                minutes=_minutes(6),
                dags={"churn_model": 11, "image_search": 5},
            ),
            self._backend(
                "spot",
                "KubernetesExecutor",
                40,
                0,
                state=BackendState.FAILING,
                since=ago(minutes=7),
                free=0,
                trouble="The API server https://spot.example.com:6443 refuses connections (ConnectionRefusedError).",
                next_try=AT + timedelta(seconds=40),
                minutes=[
                    Minute(each.at, 0, 0) if each.at > ago(minutes=7) else each for each in _minutes(22)
                ],
            ),
            self._backend(
                "small",
                "LocalExecutor",
                8,
                3,
                state=BackendState.DRAINING,
                since=drained.since,
                free=0,
                held=4,
                oldest=ago(minutes=17),
                order=drained,
                minutes=_minutes(4),
                dags={"nightly_report": 3},
            ),
        ]
        schedulers = [
            scheduler(
                str(number),
                hostname=f"scheduler-{number}.example.com",
                written=ago(seconds=number),
                heartbeat=ago(seconds=number),
            )
            for number in (1, 2)
        ]
        return Status(AT, schedulers, [self._ordered(each) for each in backends])

    @staticmethod
    def _backend(name: str, executor: str, slots: int, used: int, **fields: Any) -> BackendStatus:
        last = fields["minutes"][-1]
        values = {"since": ago(hours=26), "free": slots - used, **fields}
        rates = {"submitted_per_minute": last.submitted, "ended_per_minute": last.ended}
        return backend(name, executor=executor, slots=slots, used=used, **rates, **values)

    def waiting(self, backend: str | None, reason: str | None, dag_id: str | None) -> WaitingOfTeams:
        cordoned = {"reason": "waits_blocked", "words": "no target takes work"}
        detail = "small: It is drained by maria: new disks."
        groups = [
            group("gpu", 38, oldest=ago(minutes=26)),
            group("small", 4, oldest=ago(minutes=17), detail=detail, **cordoned),
        ]
        tasks = [
            *(self._of_gpu(place) for place in range(1, 9)),
            *(
                self._task(
                    "nightly_report",
                    "export",
                    map_index=index,
                    queue="small",
                    route="small",
                    targets=["small"],
                    detail=detail,
                    since=ago(minutes=17 - index),
                    position=index + 1,
                    expected=None,
                    others=False,
                    **cordoned,
                )
                for index in range(4)
            ),
        ]
        found = [
            task
            for task in tasks
            if backend in (None, *task.targets[:1])
            and reason in (None, task.reason)
            and dag_id in (None, task.dag_id)
        ]
        shown = [each for each in groups if backend in (None, each.backend) and reason in (None, each.reason)]
        return WaitingOfTeams(AT, {None: 42}, shown, found)

    def _of_gpu(self, place: int) -> WaitingTask:
        if place % 3:
            dag_id, task_id, queue, targets, usual = "churn_model", "train", "gpu", ["gpu"], 870.0
        else:
            dag_id, task_id, queue, targets, usual = (
                "image_search",
                "embed",
                "gpu-any",
                ["gpu", "celery"],
                240.0,
            )
        return self._task(
            dag_id,
            task_id,
            queue=queue,
            route=queue,
            targets=targets,
            usual=usual,
            map_index=place,
            since=ago(minutes=26, seconds=-40 * place),
            position=place,
            expected=AT + timedelta(seconds=25 * place),
            others=False,
        )

    @staticmethod
    def _task(dag_id: str, task_id: str, **fields: Any) -> WaitingTask:
        return waiting_task(dag_id, task_id, run_id=RUN, **fields)

    def forecast(self, backend: str, team: str | None) -> Forecast:
        return Forecast(AT, backend, team, has=16, not_begun=1, held=38, elsewhere={"celery": 12}, stay=26)

    def changes(self, since: datetime, concerns: Callable[[str | None], bool]) -> list[Change]:
        file = "/etc/dispatch/routing.yaml is in use: routes[1].overflow_after: 60 is now 30"
        host = "scheduler-1.example.com"
        drained = "drain small for 11880 s: new disks"
        return [
            Change(ago(minutes=18), "dispatch_drain", drained, "maria", "small", None, None),
            Change(ago(hours=3), "config_file_changed", file, None, None, None, host),
        ]

    def story(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        try_number: int | None,
        with_audit_log: bool,
    ) -> TaskStory:
        at = ago(minutes=26)
        steps = [
            StoryStep(
                at, "scheduled", "all that it depends on is done (Airflow keeps only the last such time)"
            ),
            StoryStep(
                at + timedelta(seconds=2),
                "queued",
                "Airflow gave it to the executor, in queue 'gpu'",
                detail="scheduler 1 has it now",
            ),
            StoryStep(
                at + timedelta(seconds=3),
                "dispatched",
                "to backend 'gpu' by route 'gpu'",
                "gpu",
                "first_choice: the route's first target has a free slot",
            ),
            StoryStep(
                at + timedelta(seconds=11),
                "waits_launch",
                "The node had no room for the image registry.example.com/churn:2.1 (ErrImagePull).",
            ),
            StoryStep(
                at + timedelta(minutes=5, seconds=12),
                "waits_full",
                FULL,
                detail="gpu: 16 of 16 slots are in use.",
            ),
        ]
        waits = self._of_gpu(4)
        return TaskStory("churn_model", "train", RUN, 4, 1, "queued", steps, waits)
