# SPDX-License-Identifier: Apache-2.0
"""The Celery provider's own executor as a backend, beside this package's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from celery import Celery
from sqlalchemy import update

from airflow_dispatch_provider.testing import make_task
from devkit.servers.valkey import ValkeyServer

from ..celery.conftest import valkey
from ..celery.workers import Worker
from ..database import as_the_scheduler_offers_them, stored, workload_of
from .conftest import Hand

__all__ = ["valkey"]

pytestmark = [pytest.mark.integration("redis"), pytest.mark.once]

CELERY = "airflow.providers.celery.executors.celery_executor.CeleryExecutor"

MakeRouter = Callable[..., Any]


def routes(*queues: str) -> list[dict[str, Any]]:
    """``theirs`` has these queues beside its own."""
    return [{"queue": queue, "to": ["theirs"]} for queue in ("theirs", *queues)]


def adopting(start: Callable[[], Hand], task: Any, sent: Callable[[Hand], Any]) -> Hand:
    """A second router that has taken over the task, which the first one has sent and which runs."""
    first = start()
    first.queue(task)
    first.beat_until(lambda: sent(first))
    external_id = first.events.get(task.ti.key, (None, None))[1]
    with create_session() as session:
        values = {"state": "running", "queued_by_job_id": 1, "external_executor_id": external_id}
        session.execute(update(TaskInstance).where(TaskInstance.id == task.ti.id).values(**values))
    second = start()
    with create_session() as session:
        offered = [ti for ti in as_the_scheduler_offers_them(session) if ti.task_id == task.ti.task_id]
        assert second.router.try_adopt_task_instances(offered) == []
    second.beat_until(lambda: "adopted" in str(second.router._loop.machine.story(task.ti.key)))
    return second


@pytest.fixture
def stored_tasks(database: str) -> Callable[..., list[Any]]:
    """Makes workloads of stored task instances that this scheduler has queued, one in each of these queues."""

    def make(*queues: str) -> list[Any]:
        with create_session() as session:
            session.execute(update(TaskInstance).values(state="success", try_number=1))
            tis = stored(session)[: len(queues)]
            for ti, queue in zip(tis, queues, strict=True):
                ti.state, ti.queued_by_job_id, ti.queue = "queued", 1, queue
            session.flush()
            return [workload_of(ti) for ti in tis]

    return make


@pytest.fixture(scope="module")
def app(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """Of the global configuration, with a worker whose tasks fail at once: no API server answers them."""
    folder = tmp_path_factory.mktemp("worker")
    app = Celery(broker=valkey.url(), backend=valkey.url(1))
    with (
        pytest.MonkeyPatch.context() as patch,
        Worker(folder, valkey.url(), valkey.url(1), "theirs,ours") as it,
    ):
        # The provider's own reads them where it is imported, and publishes by them.
        patch.setenv("AIRFLOW__CELERY__BROKER_URL", valkey.url())
        patch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", valkey.url(1))
        it.wait_until_ready(app)
        yield app


def test_celery_tasks_end_side_by_side(app: Celery, make_router: MakeRouter, they_run: Any) -> None:
    """Each executor gets its own tasks, and says how they ended."""
    backends = {
        "theirs": {"executor": CELERY, "slots": 4},
        "ours": {"executor": "CeleryExecutor", "slots": 4},
    }
    clerk = they_run()
    hand = Hand(make_router(backends, clerk=clerk, routes=routes(), default="ours"), clerk)
    tasks = [make_task(queue=queue) for queue in ("theirs", "ours", "theirs", "ours")]
    hand.queue(*tasks)
    hand.beat_until(lambda: hand.is_ended(*tasks), 40)
    assert [hand.state(task) for task in tasks] == ["failed"] * 4
    assert hand.router.slots_occupied == 0


@pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")
def test_a_celery_task_is_adopted(
    app: Celery, make_router: MakeRouter, they_run: Any, stored_tasks: Callable[..., list[Any]]
) -> None:
    """By the id of its message; its end arrives at the router that adopted it."""
    backends = {"theirs": {"executor": CELERY, "slots": 4}}
    (task,) = stored_tasks("later")
    clerk = they_run()
    hand = adopting(
        lambda: Hand(make_router(backends, clerk=clerk), clerk),
        task,
        lambda first: task.ti.key in first.events,
    )
    app.control.add_consumer("later", reply=True)
    hand.beat_until(lambda: hand.is_ended(task), 40)
    assert hand.state(task) == "failed"
