# SPDX-License-Identifier: Apache-2.0
"""The executor between Airflow's calls and its two threads, which are replaced here by lists."""

from __future__ import annotations

import logging
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.utils.state import TaskInstanceState
from celery import states

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines import holding_back
from airflow_dispatch_provider.engines.celery.publisher import Failed, Sent
from airflow_dispatch_provider.engines.protocols import ReportsHealth, ReturnsWork
from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.executors import celery_executor
from airflow_dispatch_provider.executors.celery_executor import WAITED, CeleryExecutor
from airflow_dispatch_provider.testing import make_callback, make_task

from .fakes import FAILED, QUEUED, SUCCESS, give, key_of, report, send_all

pytestmark = pytest.mark.usefixtures("no_database")


def test_it_is_what_the_router_looks_for(executor):
    """Work can be taken back from it, and it knows how the broker is."""
    assert isinstance(executor, ReturnsWork)
    assert isinstance(executor, ReportsHealth)


def test_a_task_is_sent_and_its_id_is_reported(executor):
    """Airflow learns the Celery id only when the broker has the message."""
    task = make_task(queue="q")
    (celery_id,) = give(executor, task)
    (outgoing,) = executor._publisher.submitted
    assert (outgoing.queue, outgoing.workload) == ("q", task)
    assert executor.get_event_buffer() == {}
    send_all(executor)
    assert executor.get_event_buffer() == {key_of(executor, task): (QUEUED, celery_id)}
    assert executor._watcher.watched == [celery_id]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="ids are assigned beforehand since Airflow 3.2")
def test_an_id_assigned_beforehand_is_used(executor):
    """The scheduler has it in the database already, and adopts by it."""
    assert give(executor, make_task(external_executor_id="assigned")) == ["assigned"]


@pytest.mark.parametrize(
    ("state", "expected"), [(states.SUCCESS, SUCCESS), (states.FAILURE, FAILED), (states.REVOKED, FAILED)]
)
def test_a_result_becomes_an_event(executor, state, expected):
    """Celery's final states end the task, and free its slot."""
    task = make_task()
    (celery_id,) = give(executor, task)
    send_all(executor)
    executor.get_event_buffer()
    events = report(executor, celery_id, state, "why")
    assert {key: value[0] for key, value in events.items()} == {key_of(executor, task): expected}
    assert (executor.slots_occupied, executor.has_task(task.ti)) == (0, False)


def test_a_result_before_the_report_of_sending(executor):
    """A fast worker: the final event is not overwritten by the one that the task was sent."""
    task = make_task()
    (celery_id,) = give(executor, task)
    executor._publisher.reports += [Sent(outgoing) for outgoing in executor._publisher.take()]
    events = report(executor, celery_id, states.SUCCESS)
    assert events[key_of(executor, task)][0] == SUCCESS


def test_a_task_that_has_started_is_not_sent_again(executor):
    """A message that a worker has got is settled with the publisher."""
    (celery_id,) = give(executor, make_task())
    send_all(executor)
    assert report(executor, celery_id, states.STARTED).keys() <= {*executor.running}
    assert celery_id in executor._publisher.settled_ids
    assert len(executor.running) == 1


def test_a_message_that_cannot_be_made_fails_its_task(executor):
    """Alone, and with the reason."""
    task, other = make_task(), make_task()
    give(executor, task, other)
    bad, good = executor._publisher.take()
    executor._publisher.reports += [Failed(bad, "no such thing"), Sent(good)]
    executor.heartbeat()
    events = executor.get_event_buffer()
    assert events[key_of(executor, task)] == (FAILED, "no such thing")
    assert events[key_of(executor, other)][0] == QUEUED


def test_a_task_that_has_ended_without_a_result_frees_its_slot(executor):
    """The task's state is Airflow's affair: the event is a success, as of every workload that a worker has run."""
    task, running = make_task(), make_task()
    (celery_id, _) = give(executor, task, running)
    send_all(executor)
    executor.get_event_buffer()
    executor._lost.find = lambda now, waiting: [key for key in waiting() if key == celery_id]
    executor.heartbeat()
    assert {key: state for key, (state, _) in executor.get_event_buffer().items()} == {
        key_of(executor, task): SUCCESS
    }
    assert executor.running == {key_of(executor, running)}
    assert executor._publisher.settled_ids == [celery_id]


@pytest.mark.skipif(not AIRFLOW_V_3_2_PLUS, reason="callbacks came with Airflow 3.2")
@pytest.mark.parametrize(("named", "expected"), [("q", "q"), (None, "default")])
def test_a_callback_goes_to_the_queue_that_it_names(executor, named, expected):
    """Or to the default queue."""
    callback = make_callback(queue=named)
    (celery_id,) = give(executor, callback)
    assert executor._publisher.submitted[0].queue == expected
    send_all(executor)
    assert executor.get_event_buffer() == {}
    events = report(executor, celery_id, states.SUCCESS)
    assert [value[0].value for value in events.values()] == ["success"]


def test_no_more_is_on_its_way_than_allowed_and_the_best_first(make_executor):
    """The rest waits where a task of higher priority overtakes it."""
    executor = make_executor(max_unsent=2)
    low, high, middle = (make_task(priority=priority) for priority in (1, 9, 5))
    give(executor, low, high, middle)
    assert [outgoing.workload for outgoing in executor._publisher.submitted] == [high, middle]
    assert [list(queue.values()) for queue in airflow_api.queues(executor) if queue] == [[low]]
    executor._publisher.take()
    executor.heartbeat()
    assert executor._publisher.submitted[-1].workload is low


def test_never_more_than_its_slots(make_executor):
    """`parallelism` bounds what Celery has, not what is queued."""
    executor = make_executor(slots=2)
    give(executor, *(make_task() for _ in range(3)))
    assert len(executor._publisher.submitted) == 2


class TestOutage:
    """The broker cannot be used."""

    @pytest.fixture
    def task(self, executor: CeleryExecutor) -> Any:
        task = make_task()
        give(executor, task)
        executor._publisher.problem = "it is down"
        executor.heartbeat()
        return task

    def test_nothing_fails_and_the_task_waits(self, executor, task):
        """Alone, the executor's own queue has it again; the user finds out why it waits."""
        assert executor.get_event_buffer() == {}
        assert executor.has_task(task.ti)
        assert executor.running == set()
        assert sum(len(queue) for queue in airflow_api.queues(executor)) == 1
        assert [row.event for row in executor._task_event_logs] == [WAITED]
        assert executor.health() == "it is down"

    def test_it_is_sent_when_the_broker_is_back(self, executor, task):
        """Without being asked."""
        executor._publisher.problem = None
        executor.heartbeat()
        assert executor._publisher.submitted[-1].workload.ti.id == task.ti.id

    def test_the_router_gets_it_back_once(self, executor, task):
        """To hold it, or to give it to another backend."""
        assert list(executor.take_returned()) == [task]
        assert list(executor.take_returned()) == []
        assert not executor.has_task(task.ti)

    def test_nothing_is_handed_over(self, executor, task):
        """New tasks wait, too, and are returned, too."""
        another = make_task()
        assert give(executor, another) == []
        assert list(executor.take_returned()) == [task, another]

    def test_its_id_is_given_up_once(self, executor, task, no_database):
        """A scheduler that comes after this one must not adopt what no worker will ever get."""
        another = make_task()
        give(executor, another)
        executor.heartbeat()
        given_up = {"external_executor_id": None}
        assert no_database == [([task.ti.id], given_up), ([another.ti.id], given_up)]

    def test_what_was_not_given_up_is_not_returned(self, executor):
        """The broker is found missing between a heartbeat and the router's question."""
        executor.queue_workload(make_task(), None)
        executor._publisher.problem = "it is down"
        assert list(executor.take_returned()) == []

    def test_a_token_that_has_grown_old_is_renewed(self, executor, task, monkeypatch):
        """It expires at the age at which Airflow takes a queued task for stuck."""
        renewed = make_task()
        monkeypatch.setattr(holding_back, "with_new_token", lambda workload, generator: renewed)
        monkeypatch.setattr(CeleryExecutor, "jwt_generator", None, raising=False)
        executor._held_back = dict.fromkeys(executor._held_back, -1e9)
        executor._publisher.problem = None
        executor.heartbeat()
        assert executor._publisher.submitted[-1].workload is renewed

    def test_what_is_with_the_broker_is_left_alone(self, executor):
        """Only what was not sent comes back."""
        task = make_task()
        give(executor, task)
        send_all(executor)
        executor._publisher.problem = "it is down"
        executor.heartbeat()
        assert executor.running == {key_of(executor, task)}
        assert list(executor.take_returned()) == []


def test_a_healthy_executor_returns_nothing(executor):
    """Neither what waits for room nor what is on its way."""
    executor.queue_workload(make_task(), None)
    assert (executor.health(), list(executor.take_returned())) == (None, [])


class TestRevocation:
    def test_unsent(self, executor):
        """It is taken out of the publisher's queue; no worker is told."""
        task = make_task()
        give(executor, task)
        executor.revoke_task(ti=task.ti)
        assert executor._publisher.take() == []
        assert executor._publisher.revoked == []
        assert (executor.running, executor.get_event_buffer()) == (set(), {})

    def test_sent(self, executor):
        """The workers are told, and its result is nobody's business any more."""
        task = make_task()
        (celery_id,) = give(executor, task)
        send_all(executor)
        executor.get_event_buffer()
        executor.revoke_task(ti=task.ti)
        assert executor._publisher.revoked == [celery_id]
        assert executor._watcher.forgotten == [celery_id]
        assert report(executor, celery_id, states.FAILURE) == {}

    def test_queued_and_unknown(self, executor):
        """Neither raises, nor leaves anything behind."""
        task = make_task()
        executor.queue_workload(task, None)
        executor.revoke_task(ti=task.ti)
        executor.revoke_task(ti=make_task().ti)
        assert not executor.has_task(task.ti)


def test_a_final_state_from_outside_ends_the_wait(executor):
    """The scheduler has given the task up: a late result changes nothing."""
    task = make_task()
    (celery_id,) = give(executor, task)
    send_all(executor)
    executor.get_event_buffer()
    executor.change_state(key_of(executor, task), FAILED)
    assert {value[0] for value in executor.get_event_buffer().values()} == {FAILED}
    assert report(executor, celery_id, states.SUCCESS) == {}


def test_a_second_attempt_under_the_same_key(executor):
    """A task that was deferred comes back under its key: the result of the first half is not that of the second."""
    task = make_task()
    (first,) = give(executor, task)
    send_all(executor)
    again = task.model_copy(update={"ti": task.ti.model_copy()})
    if AIRFLOW_V_3_2_PLUS:
        again.ti.external_executor_id = None
    (second,) = give(executor, again)
    send_all(executor)
    executor.get_event_buffer()
    assert first != second
    assert report(executor, first, states.FAILURE) == {}
    assert report(executor, second, states.SUCCESS)[key_of(executor, task)][0] == SUCCESS


class ServerResponseError(Exception):
    """Named like the Task SDK's."""


@pytest.mark.parametrize(("state", "events"), [("running", 0), ("queued", 1)])
def test_a_copy_that_was_refused_does_not_fail_the_task(executor, monkeypatch, state, events):
    """The other copy runs: the one that was not let in says nothing about the task. If none runs, it does."""
    monkeypatch.setattr(celery_executor, "state_of", lambda ti_id: TaskInstanceState(state))
    (celery_id,) = give(executor, make_task())
    send_all(executor)
    executor.get_event_buffer()
    assert len(report(executor, celery_id, states.FAILURE, ServerResponseError("409"))) == events
    assert len(executor.running) == 1 - events


def test_the_end_gives_back_what_was_not_sent(executor, no_database):
    """The next scheduler does not wait for tasks that no broker has ever seen."""
    sent, unsent = make_task(), make_task()
    give(executor, sent)
    send_all(executor)
    give(executor, unsent)
    waiting = make_task()
    executor.queue_workload(waiting, None)
    executor.end()
    assert no_database == [([unsent.ti.id, waiting.ti.id], {"external_executor_id": None})]
    executor.end()


def test_a_dump_names_tasks_and_problems(executor, caplog, capsys):
    """For the people who send SIGUSR2."""
    caplog.set_level(logging.INFO)
    (celery_id,) = give(executor, make_task())
    executor._publisher.problem = "it is down"
    executor.debug_dump()
    logged = caplog.text + capsys.readouterr().out  # Airflow's loggers differ between the versions
    assert celery_id in logged
    assert "it is down" in logged


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("BROKER_URL", "nothing-like-it://host"),
        ("RESULT_BACKEND", "nothing-like-it://host"),
        ("RESULT_BACKEND", "disabled://"),
    ],
)
def test_a_mistake_is_named_at_the_start(monkeypatch, option, value):
    """One clear message, with the option."""
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "memory://")
    monkeypatch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", "cache+memory://")
    monkeypatch.setenv(f"AIRFLOW__CELERY__{option}", value)
    executor = CeleryExecutor()
    with pytest.raises(DispatchConfigError, match=rf"\[celery\] {option.lower()}"):
        executor.start()
    executor.end()


def test_workers_are_counted_when_somebody_asks(executor, monkeypatch):
    """Slots that are a number cost no connection; the end ends the counting."""
    census = Mock()
    monkeypatch.setattr(celery_executor, "WorkerCensus", census)
    executor._timeout = 5.0
    executor.heartbeat()
    census.assert_not_called()
    census.return_value.slots = 8
    assert (executor.worker_slots(), executor.worker_slots()) == (8, 8)
    census.assert_called_once_with(executor.celery_app, 5.0)
    census.return_value.start.assert_called_once_with()
    executor.end()
    census.return_value.stop.assert_called_once_with()
