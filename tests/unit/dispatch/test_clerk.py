# SPDX-License-Identifier: Apache-2.0
"""The thread that asks the database: in order, one after another, and never in the way of a heartbeat."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from airflow_dispatch_provider.bridge import schedulers, task_instances
from airflow_dispatch_provider.bridge.database import tables
from airflow_dispatch_provider.dispatch.api_probe import ApiProbe
from airflow_dispatch_provider.dispatch.clerk import API, AirflowDatabase, Clerk
from airflow_dispatch_provider.lifecycle.events import EXECUTION_API, Broken, Recovered, Rows, Unanswered
from airflow_dispatch_provider.lifecycle.states import GONE, Row, RowState
from tests.support import wait_until

QUEUED = Row(RowState.QUEUED)


class Database:
    """Notes what it is asked; each call waits for ``free`` and may fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.free = threading.Event()
        self.free.set()
        self.error: BaseException | None = None
        self.api_error: BaseException | None = None
        self.busy, self.errors_end = threading.Event(), threading.Event()

    def reach_api(self) -> None:
        if self.api_error is not None:
            raise self.api_error

    def hold(self, clerk: Clerk) -> None:
        """Keep the clerk busy until what is asked next has been asked."""
        self.free.clear()
        clerk.refresh({"nobody": uuid4()})
        assert self.busy.wait(10)

    def _called(self, name: str, ids: Any) -> None:
        self.busy.set()
        self.free.wait(10)
        self.calls.append((name, list(ids)))
        if self.error is not None:
            self.errors_end.set()
            raise self.error

    def look_up(self, ids: Any) -> Any:
        self._called("look_up", ids)
        return dict.fromkeys(ids, QUEUED)

    def put_back(self, ids: Any, before: float) -> None:
        self._called("put_back", ids)

    def restart(self, ids: Any) -> None:
        self._called("restart", ids)

    def unstart(self, ids: Any) -> None:
        self._called("unstart", ids)

    def refresh(self, ids: Any) -> None:
        self._called("refresh", ids)

    def living(self) -> set[str]:
        self._called("living", ())
        return {"1", "2"}


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def clerk(database: Database) -> Any:
    made = Clerk(database, ApiProbe(database.reach_api, 10))
    made.start()
    yield made
    database.free.set()
    made.stop(10)


def test_answers_in_the_order_of_the_questions(clerk, database):
    """A question about what an earlier one changed is put after that."""
    database.hold(clerk)
    clerk.put_back(3, {"x": uuid4(), "y": uuid4()})
    clerk.look_up(4, {"x": uuid4()})
    database.free.set()
    clerk.stop(10)
    assert [name for name, _ in database.calls] == ["refresh", "put_back", "look_up"]
    assert clerk.answers() == [Rows(3, {"y": QUEUED}), Rows(4, {"x": QUEUED})]
    assert clerk.answers() == []


def test_questions_that_have_waited_are_put_as_one(clerk, database):
    """However many have come meanwhile; about each key one answer comes, and it is the last question's."""
    database.hold(clerk)
    for asked in range(1, 6):
        clerk.look_up(asked, {"x": uuid4(), asked: uuid4()})
        clerk.refresh({asked: uuid4()})
    database.free.set()
    clerk.stop(10)
    assert database.calls[1:] == [("refresh", [1, 2, 3, 4, 5]), ("look_up", ["x", 1, 2, 3, 4, 5])]
    answers = clerk.answers()
    assert [answer.asked for answer in answers if "x" in answer.rows] == [5]
    assert [answer.asked for answer in answers if answer.asked in answer.rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), MemoryError()], ids=repr)
def test_whatever_is_raised_the_thread_lives_on(clerk, database, error):
    """A driver or a hook of somebody's may raise anything."""
    database.error = error
    database.hold(clerk)
    database.free.set()
    assert database.errors_end.wait(10)
    database.error = None
    clerk.look_up(1, {"x": uuid4()})
    clerk.stop(10)
    assert clerk.answers() == [Rows(1, {"x": QUEUED})]


def test_it_can_be_stopped_before_its_start(database):
    """The scheduler was told to end while it started."""
    Clerk(database, ApiProbe(database.reach_api, 10)).stop(60)


def test_asking_never_waits(clerk, database):
    """However long the database takes."""
    database.free.clear()
    clerk.look_up(1, {"x": uuid4()})
    clerk.refresh({"x": uuid4()})
    assert clerk.answers() == []
    database.free.set()
    clerk.stop(10)
    assert len(clerk.answers()) == 1


def test_what_fails_is_dropped_and_said_once(clerk, database, caplog):
    """Whoever asked hears so, and asks again; the thread lives on."""
    database.error = OSError("connection refused")
    for asked in (1, 2):
        database.errors_end.clear()
        clerk.look_up(asked, {"x": uuid4()})
        assert database.errors_end.wait(10)
    database.error = None
    clerk.look_up(3, {"x": uuid4()})
    clerk.stop(10)
    assert clerk.answers() == [Unanswered(1, "x"), Unanswered(2, "x"), Rows(3, {"x": QUEUED})]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_trouble_that_is_not_said_again_has_its_text_made_once(clerk, database):
    """For its reason, and not for a traceback that nobody reads."""
    texts = []

    class Refused(OSError):
        def __str__(self) -> str:
            texts.append("made")
            return "refused"

    database.error = Refused()
    for asked in (1, 2):
        texts.clear()
        clerk.look_up(asked, {"x": uuid4()})
        assert wait_until(clerk.answers) == [Unanswered(asked, "x")]
    clerk.stop(10)
    assert len(texts) == 1


def test_a_kind_of_questions_that_fails_is_said_once_though_others_are_answered(
    database, monkeypatch, caplog
):
    """A user of the database may be allowed to read, and not to write."""

    def put_back(ids: Any, before: float) -> None:
        raise OSError("not allowed")

    caplog.set_level("INFO")
    monkeypatch.setattr(database, "put_back", put_back)
    clerk = Clerk(database, ApiProbe(database.reach_api, 10))
    clerk.put_back(1, {"x": uuid4()})
    clerk.start()
    assert wait_until(clerk.answers) == [Rows(1, {"x": QUEUED})]
    clerk.put_back(2, {"x": uuid4()})
    clerk.stop(10)
    assert clerk.answers() == [Rows(2, {"x": QUEUED})]
    lines = [record.message.partition("(")[2].partition("\n")[0] for record in caplog.records]
    assert lines == ["put_back): OSError: not allowed"]


def test_the_thread_lives_on_where_no_other_can_be_begun(database, monkeypatch, caplog):
    """The process has as many threads as it may have; what else is asked is answered."""

    def fails(self: ApiProbe) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ApiProbe, "learn", fails)
    monkeypatch.setattr(ApiProbe, "ask", fails)
    clerk = Clerk(database, ApiProbe(database.reach_api, 10))
    clerk.start()
    clerk.ask_api()
    clerk.look_up(1, {"x": uuid4()})
    clerk.stop(10)
    assert clerk.answers() == [Rows(1, {"x": QUEUED})]
    assert f"{API}: RuntimeError: can't start new thread" in caplog.text


def test_which_schedulers_live_is_told_once_for_each_time_it_is_asked(clerk, database):
    """Beside other questions, and with no row of a task for an answer."""
    database.hold(clerk)
    clerk.ask_living()
    clerk.look_up(1, {"x": uuid4()})
    clerk.ask_living()
    assert clerk.take_living() is None
    database.free.set()
    clerk.stop(10)
    assert [name for name, _ in database.calls] == ["refresh", "look_up", "living"]
    assert (clerk.take_living(), clerk.take_living()) == ({"1", "2"}, None)
    assert clerk.answers() == [Rows(1, {"x": QUEUED})]


def test_where_the_database_does_not_say_who_lives_nobody_is_taken_for_dead(clerk, database, caplog):
    database.error = OSError("connection refused")
    clerk.ask_living()
    clerk.stop(10)
    assert clerk.take_living() is None
    assert "(living): OSError: connection refused" in caplog.text


def test_what_is_to_be_run_anew_is_asked_about_as_well(clerk, database):
    """In one question with the others, after all that was to be changed."""
    database.hold(clerk)
    clerk.look_up(1, {"x": uuid4()})
    clerk.restart(2, {"y": uuid4()})
    clerk.put_back(3, {"z": uuid4()})
    clerk.unstart(4, {"v": uuid4()})
    database.free.set()
    clerk.stop(10)
    changes = [("restart", ["y"]), ("put_back", ["z"]), ("unstart", ["v"])]
    assert database.calls[1:] == [*changes, ("look_up", ["x", "y", "z", "v"])]
    assert clerk.answers() == [Rows(asked, {key: QUEUED}) for asked, key in enumerate("xyzv", 1)]


def test_what_is_put_back_was_queued_before_it_was_asked(clerk, database, monkeypatch):
    """However long the question waits: what is queued later was queued again."""
    before: list[float] = []
    monkeypatch.setattr(database, "put_back", lambda ids, at: before.append(at))
    database.hold(clerk)
    asked = time.time()
    clerk.put_back(1, {"x": uuid4()})
    answered = time.time()
    database.free.set()
    clerk.stop(10)
    assert asked <= before[0] <= answered


def test_its_thread_keeps_no_process_alive():
    """A scheduler that ends does not wait for a database."""
    database = Database()
    clerk = Clerk(database, ApiProbe(database.reach_api, 10))
    clerk.start()
    (thread,) = (each for each in threading.enumerate() if each.name == "dispatch-clerk")
    assert thread.daemon
    clerk.stop(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("error", "news"),
    [
        (None, Recovered(EXECUTION_API)),
        (OSError("refused"), Broken(EXECUTION_API, "OSError: refused")),
        (SystemExit(1), Broken(EXECUTION_API, "SystemExit: 1")),
    ],
    ids=repr,
)
def test_whether_the_execution_api_answers_is_asked_once_for_all_questions(clerk, database, error, news):
    """Before the rows that are judged by its answer; its trouble is none of the database."""
    clerk.ask_api()
    wait_until(lambda: clerk.answers() == [Recovered(EXECUTION_API)])
    database.hold(clerk)
    clerk.ask_api()
    clerk.ask_api()
    clerk.look_up(1, {"x": uuid4()})
    database.api_error = error
    database.free.set()
    clerk.stop(10)
    assert clerk.answers() == [news, Rows(1, {"x": QUEUED})]


ID, OTHER = uuid4(), uuid4()


@pytest.mark.parametrize(
    ("state", "queued_by", "row"),
    [
        ("queued", 7, Row(RowState.QUEUED, True, 3.0)),
        ("queued", 8, Row(RowState.QUEUED, False, 3.0)),
        ("queued", None, Row(RowState.QUEUED, False, 3.0)),
        ("running", 7, Row(RowState.RUNNING, True, 3.0)),
        ("restarting", 7, Row(RowState.RUNNING, True, 3.0, cleared=True)),
        # Everything else is the task's own affair, or Airflow's.
        ("success", 7, Row(RowState.OVER, True, 3.0, finished=True)),
        ("scheduled", 7, Row(RowState.OVER, True, 3.0)),
        ("deferred", 7, Row(RowState.OVER, True, 3.0)),
        (None, 7, Row(RowState.OVER, True, 3.0)),
    ],
)
def test_a_row_as_the_life_cycle_sees_it(state, queued_by, row, monkeypatch):
    """A row that is not there is gone."""
    facts = {ID: task_instances.RowFacts(state, queued_by, 3.0)}
    monkeypatch.setattr(
        task_instances, "row_facts", lambda ids: {each: facts[each] for each in ids if each in facts}
    )
    found = AirflowDatabase(7, 20.0).look_up({"x": ID, "y": OTHER})
    assert found == {"x": row, "y": GONE}


@pytest.mark.parametrize(
    ("ask", "call", "told"),
    [
        (lambda it: it.put_back({"x": ID}, 5.0), "reschedule_queued", (5.0, 7)),
        (lambda it: it.restart({"x": ID}), "restart_silent", (7, 20.0)),
        (lambda it: it.unstart({"x": ID}), "unstart_silent", (7, 20.0)),
        (lambda it: it.refresh({"x": ID}), "refresh_queued", (7,)),
    ],
)
def test_what_the_database_is_told(ask, call, told, monkeypatch):
    """Rows of this scheduler are changed; see also ``unstart_silent``."""
    calls: list[Any] = []
    monkeypatch.setattr(task_instances, call, lambda ids, *rest: calls.append((list(ids), rest)))
    ask(AirflowDatabase(7, 20.0))
    assert calls == [([ID], told)]


def test_who_asks_lives(monkeypatch):
    """However late its own heartbeat is."""
    monkeypatch.setattr(schedulers, "living", lambda: {"8"})
    assert AirflowDatabase(7, 20.0).living() == {"7", "8"}


def test_locked_tables_of_this_package_keep_no_question_waiting(make_router, database, monkeypatch):
    """Somebody has locked a row of the status: what waits must still be kept from looking stuck."""
    locked, released = threading.Event(), threading.Event()

    def write(row: Any) -> None:
        locked.set()
        released.wait(20)

    monkeypatch.setattr(tables, "write_status", write)
    monkeypatch.setattr(tables, "read_orders", lambda now: [])
    clerk = Clerk(database, ApiProbe(database.reach_api, 10))
    router = make_router({"a": 1}, clerk=clerk)
    router.heartbeat()
    assert locked.wait(20)
    clerk.refresh({"waits": uuid4()})
    wait_until(lambda: ("refresh", ["waits"]) in database.calls)
    released.set()
