# SPDX-License-Identifier: Apache-2.0
"""Each kind of result backend that needs no server, with results stored by Celery itself."""

from __future__ import annotations

import logging
import pickle
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from celery.app.task import Context
from celery.backends.base import Backend, KeyValueStoreBackend
from celery.exceptions import TaskRevokedError
from kombu.exceptions import DecodeError, OperationalError
from kombu.transport.memory import Transport
from sqlalchemy.engine import make_url

from airflow_dispatch_provider.engines.celery import result_sources, results
from airflow_dispatch_provider.engines.celery.result_sources import backend_class, backend_name, open_source
from airflow_dispatch_provider.engines.celery.results import Polled, Result, ResultSource, Timing, chunks
from airflow_dispatch_provider.engines.celery.results_database import DatabaseSource, _connect_args
from airflow_dispatch_provider.engines.celery.results_polled import KeyValueSource, OneByOneSource
from airflow_dispatch_provider.engines.celery.results_rpc import RpcSource

HERE = __name__


class BytesKeyed(KeyValueStoreBackend):
    """A list for many keys, as most clients answer."""

    stored: dict[bytes, Any] = {}  # noqa: RUF012
    calls: list[int] = []  # noqa: RUF012

    def get(self, key):
        return self.stored.get(key)

    def mget(self, keys):
        self.calls.append(len(keys))
        return [self.stored.get(key) for key in keys]

    def set(self, key, value):
        self.stored[key] = value


class OnlySingle(KeyValueStoreBackend):
    """A store that cannot be asked for many, as Celery's one for S3."""

    stored = BytesKeyed.stored

    def get(self, key):
        return self.stored.get(key)

    def set(self, key, value):
        self.stored[key] = value


class Custom(Backend):
    """Neither keys nor a database; ``answers`` holds what ``get_task_meta`` returns or raises."""

    answers: dict[str, Any] = {}  # noqa: RUF012

    def _get_task_meta_for(self, task_id):
        answer = self.answers.get(task_id, {"status": "PENDING", "result": None})
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _store_result(self, task_id, result, state, *rest, **more):
        self.answers[task_id] = self.meta_from_decoded({"status": state, "result": result})

    def exception_safe_to_retry(self, exc):
        return True


BACKENDS = {
    "a mapping for many keys": "cache+memory://",
    "a list for many keys": f"{HERE}:BytesKeyed",
    "one key at a time": f"{HERE}:OnlySingle",
    "anything else": f"{HERE}:Custom",
    "database": "db+sqlite:///{folder}/results.db",
    "messages": "rpc://",
}


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    BytesKeyed.calls.clear()
    yield
    BytesKeyed.stored.clear()
    Custom.answers.clear()


@pytest.fixture(params=BACKENDS.values(), ids=BACKENDS.keys())
def app(request, tmp_path) -> Celery:
    return Celery("t", broker="memory://", backend=request.param.format(folder=tmp_path))


def opened(app: Celery) -> ResultSource:
    return open_source(app, Timing())


def store(app: Celery, celery_id: str, state: str, value: Any) -> None:
    """Do as a worker does."""
    queue = result_sources.reply_queue(app)
    request = Context(reply_to=queue.name, correlation_id=celery_id) if queue else None
    app.backend.store_result(celery_id, value, state, request=request)


def ask(source: ResultSource, *ids: str, watched: Mapping[str, bool] | None = None) -> list[Result]:
    answers = source.ask(ids, dict.fromkeys(ids, False) if watched is None else watched)
    return [result for answer in answers for result in answer]


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.mark.parametrize(
    ("state", "value", "info"),
    [
        ("STARTED", {"pid": 1}, {"pid": 1}),
        ("SUCCESS", 7, 7),
        ("SUCCESS", None, None),
        ("FAILURE", ValueError("a", 1), ValueError("a", 1)),
        ("REVOKED", TaskRevokedError("terminated"), TaskRevokedError("terminated")),
    ],
)
def test_what_a_worker_stores_is_reported(app, state, value, info):
    source = opened(app)
    celery_id, other = new_id(), new_id()
    store(app, celery_id, state, value)
    (result,) = ask(source, celery_id, other)
    assert (result.celery_id, result.state, result.final) == (celery_id, state, state != "STARTED")
    assert (type(result.info), getattr(result.info, "args", result.info)) == (
        type(info),
        getattr(info, "args", info),
    )


@pytest.mark.parametrize("state", ["PENDING", "RETRY", "RECEIVED", "PROGRESS"])
def test_other_states_are_not_reported(app, state):
    source = opened(app)
    celery_id = new_id()
    store(app, celery_id, state, ValueError("later") if state == "RETRY" else None)
    assert ask(source, celery_id) == []


def test_nothing_is_asked_for_no_ids(app):
    assert ask(opened(app)) == []
    assert BytesKeyed.calls in ([], [1])  # the one that connects


def test_the_last_state_counts(app):
    source = opened(app)
    celery_id = new_id()
    store(app, celery_id, "STARTED", None)
    assert ask(source, celery_id)[-1].state == "STARTED"
    store(app, celery_id, "SUCCESS", None)
    assert ask(source, celery_id)[-1].state == "SUCCESS"


def test_many_are_asked_for_in_chunks(monkeypatch):
    monkeypatch.setattr(results, "CHUNK", 3)
    app = Celery("t", broker="memory://", backend=f"{HERE}:BytesKeyed")
    ids = [new_id() for _ in range(7)]
    for celery_id in ids:
        store(app, celery_id, "SUCCESS", None)
    source = opened(app)
    BytesKeyed.calls.clear()
    answers = list(source.ask(ids, {}))
    assert [len(answer) for answer in answers] == [3, 3, 1]
    assert BytesKeyed.calls == [3, 3, 1]
    assert [result.celery_id for answer in answers for result in answer] == ids


@pytest.mark.parametrize(
    "garbage",
    [
        "no json",
        b"\xff\xfe",
        "[]",
        "null",
        '{"status": []}',
        '{"result": 1}',
        '{"status": "FAILURE", "result": 5}',
    ],
)
def test_garbage_is_one_tasks_affair(garbage, caplog):
    app = Celery("t", broker="memory://", backend=f"{HERE}:BytesKeyed")
    source = opened(app)
    broken, sound = new_id(), new_id()
    store(app, sound, "SUCCESS", None)
    BytesKeyed.stored[app.backend.get_key_for_task(broken)] = garbage
    for _ in range(3):
        assert ask(source, broken, sound) == [Result(sound, "SUCCESS")]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert broken in warnings[0].getMessage()


def test_garbage_and_outages_are_told_apart_one_by_one():
    """A result that cannot be read concerns its task; a broken connection concerns all, and is raised at once."""
    app = Celery("t", broker="memory://", backend=f"{HERE}:Custom")
    app.conf.result_backend_always_retry = True
    source = opened(app)
    Custom.answers.update(a=DecodeError("garbage"), b={"status": "SUCCESS", "result": 1})
    assert ask(source, "a", "b") == [Result("b", "SUCCESS", 1)]
    Custom.answers["a"] = ConnectionError("gone")
    with pytest.raises(ConnectionError, match="gone"):
        ask(source, "a", "b")


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("cache+memory://", KeyValueSource),
        (f"{HERE}:BytesKeyed", KeyValueSource),
        (f"{HERE}:OnlySingle", OneByOneSource),
        (f"{HERE}:Custom", OneByOneSource),
        ("db+sqlite://", DatabaseSource),
        ("rpc://", RpcSource),
    ],
)
def test_each_backend_is_asked_in_its_best_way(backend, kind):
    assert type(opened(Celery("t", broker="memory://", backend=backend))) is kind


def test_an_unreachable_backend_is_found_out_when_it_is_opened(monkeypatch):
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(BytesKeyed, "mget", refuse)
    with pytest.raises(ConnectionRefusedError):
        opened(Celery("t", broker="memory://", backend=f"{HERE}:BytesKeyed"))


def test_the_app_own_backend_is_left_alone():
    """Celery keeps one for each thread; ours is made beside it."""
    app = Celery("t", broker="memory://", backend="cache+memory://")
    opened(app)
    assert not hasattr(app._local, "backend")


class Recorder:
    """Statements and their parameters, as they go to a database."""

    def __init__(self, engine: sa.Engine) -> None:
        self.statements: list[tuple[str, Any]] = []
        sa.event.listen(engine, "before_cursor_execute", self._record)

    def _record(self, conn: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        self.statements.append((statement, parameters))


@pytest.fixture
def database(tmp_path) -> Celery:
    return Celery("t", broker="memory://", backend=f"db+sqlite:///{tmp_path}/results.db")


def test_a_fleet_that_goes_on_running_gives_no_rows(database):
    source = opened(database)
    celery_id = new_id()
    store(database, celery_id, "STARTED", None)
    assert ask(source, celery_id, watched={celery_id: False}) == [Result(celery_id, "STARTED")]
    assert ask(source, celery_id, watched={celery_id: True}) == []
    store(database, celery_id, "SUCCESS", None)
    assert ask(source, celery_id, watched={celery_id: True}) == [Result(celery_id, "SUCCESS")]


def test_the_database_is_asked_for_chunks_of_ids_and_for_no_more_than_it_needs(database):
    source = opened(database)
    recorder = Recorder(source._engine)
    ids = [new_id() for _ in range(1200)]
    assert ask(source, *ids, watched={celery_id: number < 100 for number, celery_id in enumerate(ids)}) == []
    assert [len(parameters) for _, parameters in recorder.statements] == [500 + 4, 500 + 4, 100 + 4, 100 + 3]
    assert all("traceback" not in statement for statement, _ in recorder.statements)
    recorder.statements.clear()
    assert ask(source) == []
    assert recorder.statements == []


@pytest.mark.parametrize("garbage", [b"no pickle", pickle.dumps(5)])
def test_garbage_in_a_row_is_one_tasks_affair(garbage, database, caplog):
    source = opened(database)
    broken, sound = new_id(), new_id()
    store(database, broken, "FAILURE", ValueError())
    store(database, sound, "SUCCESS", None)
    with source._engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE celery_taskmeta SET result = :garbage WHERE task_id = :id"),
            {"garbage": garbage, "id": broken},
        )
    assert ask(source, broken, sound) == [Result(sound, "SUCCESS")]
    assert f"The result of Celery task {broken} is ignored" in caplog.text


def test_the_users_table_and_engine_options_are_used(tmp_path, monkeypatch):
    seen: list[Mapping[str, Any]] = []
    create = sa.create_engine
    monkeypatch.setattr(
        sa, "create_engine", lambda url, **options: seen.append(options) or create(url, **options)
    )
    app = Celery("t", broker="memory://", backend=f"db+sqlite:///{tmp_path}/results.db")
    app.conf.database_engine_options = {"connect_args": {"timeout": 7}, "echo": False}
    opened(app)
    assert seen[0] == {"connect_args": {"timeout": 7}, "echo": False}


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("postgresql+psycopg2://h/d", {"connect_timeout", "tcp_user_timeout"}),
        ("postgresql://h/d", {"connect_timeout", "tcp_user_timeout"}),
        ("postgresql+psycopg://h/d", {"connect_timeout", "tcp_user_timeout"}),
        ("mysql+pymysql://h/d", {"connect_timeout", "read_timeout", "write_timeout"}),
        ("mysql+mysqldb://h/d", {"connect_timeout", "read_timeout", "write_timeout"}),
        ("sqlite://", set()),
    ],
)
def test_drivers_get_the_time_outs_that_they_have(url, names):
    arguments = _connect_args(make_url(url), 10.0)
    assert names <= arguments.keys()
    assert bool(names) == bool(arguments)
    assert "options" not in arguments  # PgBouncer refuses it


def test_a_time_out_in_the_url_stays():
    arguments = _connect_args(make_url("postgresql+psycopg2://h/d?connect_timeout=3"), 10.0)
    assert "connect_timeout" not in arguments
    assert "tcp_user_timeout" in arguments


def test_results_in_messages_are_told_once_and_for_any_task():
    app = Celery("t", broker="memory://", backend="rpc://")
    source = opened(app)
    assert source.once
    store(app, "a", "STARTED", None)
    store(app, "b", "SUCCESS", 1)
    assert ask(source, "b") == [Result("a", "STARTED"), Result("b", "SUCCESS", 1)]
    assert ask(source, "a", "b") == []


def test_the_reply_queue_is_that_of_the_thread():
    app = Celery("t", broker="memory://", backend="rpc://")
    names: list[str] = []
    thread = threading.Thread(target=lambda: names.append(result_sources.reply_queue(app).name))
    thread.start()
    thread.join()
    assert names != [result_sources.reply_queue(app).name] == [app.thread_oid]


def test_a_broker_that_cannot_be_reached_is_tried_twice_only(monkeypatch):
    tries: list[int] = []

    def refuse(self: Transport) -> None:
        tries.append(1)
        raise ConnectionRefusedError

    monkeypatch.setattr(Transport, "establish_connection", refuse)
    monkeypatch.setattr(Transport, "recoverable_connection_errors", (OSError,), raising=False)
    monkeypatch.setattr(Transport, "connection_errors", (OSError,))
    with pytest.raises(OperationalError):
        opened(Celery("t", broker="memory://", backend="rpc://"))
    assert len(tries) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pass@host:1/0", "redis://***@host:1/0"),
        ("redis://host:1/0?password=pass", "redis://host:1/0"),
        (
            "db+postgresql+psycopg2://u:pa:s/s@d@host/d?sslmode=require",
            "db+postgresql+psycopg2://***@host/d",
        ),
        ("sentinel://:pass@a:1;sentinel://:pass@b:1", "sentinel://***@a:1;sentinel://***@b:1"),
        ("rpc://", "rpc://"),
        ("cache+memory://", "cache+memory://"),
    ],
)
def test_a_backends_name_has_no_password(url, shown):
    assert backend_name(Celery("t", backend=url)) == shown


def test_no_results_at_all_is_said_clearly():
    with pytest.raises(results.ResultBackendError, match="Celery has no result backend"):
        backend_class(Celery("t", backend="disabled://"))


def test_waiting_ends_with_the_watcher():
    stopping = threading.Event()
    stopping.set()
    assert Polled(Timing()).receive({}, 3600, stopping) == []


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1000])
def test_chunks_hold_everything_once(count):
    parts = list(chunks(range(count)))
    assert [item for part in parts for item in part] == list(range(count))
    assert all(0 < len(part) <= 500 for part in parts)
