# SPDX-License-Identifier: Apache-2.0
"""Tasks that another scheduler has sent."""

from __future__ import annotations

from typing import Any

import pytest
from celery import states

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines.celery.lost_messages import MARGIN, LostMessages
from airflow_dispatch_provider.testing import make_task

from .fakes import SUCCESS, give, key_of, report, send_all

pytestmark = pytest.mark.usefixtures("no_database")


def test_adoption(executor):
    """Tasks with a Celery id are waited for, the others returned."""
    task, without = make_task(), make_task()
    adopted = (
        task.ti.model_copy(update={"external_executor_id": "theirs"}) if AIRFLOW_V_3_2_PLUS else Ti(task)
    )
    other = without.ti if AIRFLOW_V_3_2_PLUS else Ti(without, None)
    assert list(executor.try_adopt_task_instances([adopted, other])) == [other]
    assert executor._watcher.watched == ["theirs"]
    assert executor.running == {key_of(executor, task)}
    assert executor._task_ids_in_flight() == {"theirs": task.ti.id}
    assert report(executor, "theirs", states.SUCCESS)[key_of(executor, task)][0] == SUCCESS


def test_its_own_tasks_are_not_adopted(executor):
    """A scheduler whose heartbeat was late is offered what it has: nothing is forgotten, and nothing doubled."""
    sent, waiting = make_task(), make_task()
    (celery_id,) = give(executor, sent)
    executor.queue_workload(waiting, None)
    offered = [task.ti if AIRFLOW_V_3_2_PLUS else Ti(task) for task in (sent, waiting)]
    assert list(executor.try_adopt_task_instances(offered)) == []
    assert executor._flights[celery_id].workload is sent
    assert executor._watcher.watched == []
    assert executor.has_task(waiting.ti)


class Ti:
    """A task instance as Airflow 3.1 offers it for adoption."""

    def __init__(self, task: Any, external_executor_id: str | None = "theirs") -> None:
        self.id, self.key, self.external_executor_id = str(task.ti.id), task.ti.key, external_executor_id


def test_an_adopted_task_whose_message_is_lost_leaves_its_slot(executor):
    """It is scheduled again as a task of its own, not failed; what this scheduler sent is the publisher's to repeat."""
    asked: list[Any] = []
    executor._lost_messages = LostMessages(lambda ids, before: asked.append((list(ids), before)) or list(ids))
    lost, sent = make_task(), make_task()
    give(executor, sent)
    send_all(executor)
    executor.get_event_buffer()
    executor.try_adopt_task_instances(
        [lost.ti.model_copy(update={"external_executor_id": "theirs"}) if AIRFLOW_V_3_2_PLUS else Ti(lost)]
    )
    executor.heartbeat()
    assert asked == []
    executor._publisher.kept_since = 1000.0
    executor.heartbeat()
    assert asked == [([lost.ti.id], 1000.0 + MARGIN)]
    assert {key: event[0] for key, event in executor.get_event_buffer().items()} == {
        key_of(executor, lost): SUCCESS
    }
    assert executor.running == {key_of(executor, sent)}
    assert executor._watcher.forgotten == ["theirs"]
