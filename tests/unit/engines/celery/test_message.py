# SPDX-License-Identifier: Apache-2.0
"""The message that Celery itself would publish, beside ours."""

from __future__ import annotations

import base64
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from airflow.configuration import conf
from airflow.providers.celery.executors.celery_executor_utils import create_celery_app
from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
from celery import Celery, signals
from celery.utils.saferepr import saferepr
from hypothesis import example
from hypothesis import given as given_that
from hypothesis import strategies as st
from kombu import Connection, Exchange, Producer, Queue
from kombu.transport.memory import Channel, Transport

from airflow_dispatch_provider.engines.celery import message
from airflow_dispatch_provider.engines.celery.brokers import ChannelBroker
from airflow_dispatch_provider.engines.celery.message import TASK_NAME, Messages, Outgoing, Template
from airflow_dispatch_provider.testing.workloads import make_task

ODD = "quotes ' \" `, backslashes \\ \\n \\\\, ünïcödé, 漢字, \u2028, \x01, 😀🧑‍🚀, %s {0} ${x}"
PLACEHOLDERS = (message._ID, message._REPR, message._BODY)

WORKLOADS = {
    "plain": {},
    "odd": {"dag_id": ODD, "run_id": f"'{ODD}"},
    "long": {"run_id": "x'\"\\😀" * 1000},
    "placeholders": {"dag_id": " ".join(PLACEHOLDERS), "token": message._BODY},
    "encoded placeholder": {"token": base64.b64encode(message._BODY.encode()).decode()},
}
QUEUES = ["a.b.#.*", "with space", "q\"'`\\", "ünïcödé 😀", "%s{0}", ":/?#[]@!$&()*+,;=", "dispatch-hole-id"]

UNIFORM: dict[str, dict[str, Any]] = {
    "plain": {},
    "priority": {"task_default_priority": 5},
    "limits": {"task_annotations": {TASK_NAME: {"time_limit": 60, "soft_time_limit": 30}}},
    "annotated for all": {"task_annotations": {"*": {"priority": 7, "ignore_result": True}}},
    "annotated delivery": {"task_annotations": {TASK_NAME: {"delivery_mode": 1}}},
    "no results": {"task_ignore_result": True},
    "max priority": {"task_queue_max_priority": 10, "task_default_priority": 3},
    "transient": {"task_default_delivery_mode": "transient"},
    "queues": {"task_queues": (Queue("q", Exchange("x", type="topic"), "a.b", max_priority=3),)},
    "quorum queues": {"task_default_queue_type": "quorum", "task_create_missing_queue_type": "quorum"},
    "exchange": {"task_default_exchange_type": "topic", "task_default_exchange": "topical"},
}
SPECIAL: dict[str, dict[str, Any]] = {
    "routes": {"task_routes": {TASK_NAME: {"priority": 3, "routing_key": "elsewhere", "queue": "other"}}},
    "router": {"task_routes": lambda name, args, kwargs, options, **_: {"priority": len(args)}},
    "compression": {"task_compression": "zlib"},
    "pickle": {"task_serializer": "pickle"},
    "events": {"task_send_sent_event": True},
    "old protocol": {"task_protocol": 1},
    "annotated serializer": {"task_annotations": {TASK_NAME: {"serializer": "pickle"}}},
    "annotated expiry": {"task_annotations": {TASK_NAME: {"expires": 3600}}},
    "annotated compression": {"task_annotations": {TASK_NAME: {"compression": "gzip"}}},
}
SETTINGS = UNIFORM | SPECIAL


@pytest.fixture
def make_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Celery]]:
    """Airflow's app with ``[celery] celery_config_options``, and a broker in memory."""

    def make(**settings: Any) -> Celery:
        module = ModuleType("celery_settings_of_the_test")
        module.OPTIONS = DEFAULT_CELERY_CONFIG | {"broker_url": "memory://"} | settings
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setenv("AIRFLOW__CELERY__CELERY_CONFIG_OPTIONS", f"{module.__name__}.OPTIONS")
        monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "memory://")
        monkeypatch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", "cache+memory://")
        app = create_celery_app(conf)
        app.now = lambda: datetime(2030, 1, 1, tzinfo=UTC)
        return app

    yield make
    Channel.queues.clear()


def outgoing_for(queue: str = "q", **fields: Any) -> Outgoing:
    return Outgoing(str(uuid.uuid4()), "key", make_task(queue, **fields), queue)


def stored(queue: str) -> list[dict[str, Any]]:
    """Messages that the broker has for a queue, as its transport keeps them; takes them away."""
    kept = Channel.queues[queue].queue if queue in Channel.queues else []
    return [json.loads(json.dumps(kept.popleft())) for _ in range(len(kept))]


def decoded(raw: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from one message to the next."""
    properties = {name: value for name, value in raw["properties"].items() if name != "delivery_tag"}
    body = base64.b64decode(raw["body"])
    if raw["content-type"] == "application/json" and "compression" not in raw["headers"]:
        body = json.loads(body)
    return {**raw, "properties": properties, "body": body}


def by_celery(app: Celery, outgoing: Outgoing) -> dict[str, Any]:
    """The message of Airflow's own CeleryExecutor."""
    app.tasks[TASK_NAME].apply_async(
        args=(outgoing.workload.model_dump_json(),), queue=outgoing.queue, task_id=outgoing.celery_id
    )
    (raw,) = stored(outgoing.queue)
    return decoded(raw)


def by_us(app: Celery, outgoing: Outgoing) -> dict[str, Any]:
    broker = ChannelBroker(app, timeout=5)
    broker.connect()
    assert broker.send([outgoing], "receipt") == []
    broker.close()
    (raw,) = stored(outgoing.queue)
    return decoded(raw)


def template_of(messages: Messages, queue: str = "q") -> Template:
    """Made of what kombu's Producer stores."""
    sample = messages.sample(queue)
    with Connection("memory://") as connection:
        Producer(connection, auto_declare=False).publish(sample.body, **sample.options)
    (raw,) = [raw for name in list(Channel.queues) for raw in stored(name)]
    return Template(json.dumps(raw), raw["properties"]["delivery_tag"], messages)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_worker_is_sent_what_celery_sends(settings, workload, make_app):
    """All of the message, whatever was configured and whatever the workload contains."""
    app, outgoing = make_app(**settings), outgoing_for(**workload)
    assert by_us(app, outgoing) == by_celery(app, outgoing)


@pytest.mark.parametrize("settings", UNIFORM.values(), ids=UNIFORM)
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_a_template_gives_the_same(workload, settings, make_app):
    """Whatever the workload contains, the texts that mark the holes included."""
    app, outgoing = make_app(**settings), outgoing_for(**workload)
    text = template_of(Messages(app)).fill(outgoing.celery_id, outgoing.payload())
    assert decoded(json.loads(text)) == by_celery(app, outgoing)


@pytest.mark.parametrize("queue", QUEUES)
def test_any_name_of_a_queue_is_kept(queue, make_app):
    """Both where each message is made anew and where it is made of a template."""
    app, outgoing = make_app(), outgoing_for(queue)
    expected = by_celery(app, outgoing)
    assert by_us(app, outgoing) == expected
    text = template_of(Messages(app), queue).fill(outgoing.celery_id, outgoing.payload())
    assert decoded(json.loads(text)) == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_which_messages_are_uniform(name, make_app):
    """Only those that differ in nothing but id and workload are made of a template."""
    assert Messages(make_app(**SETTINGS[name])).are_uniform == (name in UNIFORM)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_queue_that_celery_would_declare(settings, make_app):
    """With its arguments: a queue that a worker declares otherwise is refused by RabbitMQ."""
    app = make_app(**settings)
    declared = Messages(app).publications(outgoing_for("q"))[0].declare
    assert [queue.as_dict() for queue in declared] == [app.amqp.queues["q"].as_dict()]


@pytest.mark.parametrize(
    "signal", [signals.before_task_publish, signals.after_task_publish, signals.task_sent]
)
def test_signals_are_sent_once_for_each_message(signal, make_app):
    """With the message's own id, and for nothing else."""
    app, seen = make_app(), []

    def receive(headers: Any = None, task_id: str | None = None, **_: Any) -> None:
        seen.append(task_id or headers["id"])

    signal.connect(receive, weak=False)
    try:
        assert not Messages(app).are_uniform
        batch = [outgoing_for("q"), outgoing_for("q"), outgoing_for("other")]
        broker = ChannelBroker(app, timeout=5)
        broker.connect()
        broker.send(batch, "receipt")
    finally:
        signal.disconnect(receive)
    assert seen == [outgoing.celery_id for outgoing in batch]


def test_what_a_signal_changes_is_sent(make_app):
    """Receivers change headers, properties and body in place, as OpenTelemetry's and Sentry's do."""
    app, outgoing = make_app(), outgoing_for("q")

    def change(headers: Any, properties: Any, body: Any, **_: Any) -> None:
        headers["traceparent"] = f"00-{headers['id']}"
        properties["priority"] = 9
        body[1]["more"] = "argument"

    signals.before_task_publish.connect(change, weak=False)
    try:
        ours, celerys = by_us(app, outgoing), by_celery(app, outgoing)
    finally:
        signals.before_task_publish.disconnect(change)
    assert ours == celerys
    assert ours["headers"]["traceparent"] == f"00-{outgoing.celery_id}"
    assert (ours["properties"]["priority"], ours["body"][1]) == (9, {"more": "argument"})


def test_events_are_sent_as_celery_sends_them(make_app):
    """``task-sent`` events, also where nobody has declared their exchange before."""
    app, outgoing = make_app(task_send_sent_event=True), outgoing_for("q")
    exchange = Exchange(app.conf.event_exchange, type="topic")
    Transport.global_state.exchanges.pop(exchange.name, None)
    by_us(app, outgoing)
    assert exchange.name in Transport.global_state.exchanges
    with Connection("memory://") as connection:
        Queue("events", exchange, "task.sent")(connection.default_channel).declare()
    by_us(app, outgoing)
    by_celery(app, outgoing)
    ours, celerys = (event["body"] for event in map(decoded, stored("events")))
    for event in (ours, celerys):
        assert event.pop("timestamp")
        assert event.pop("clock")
    assert ours == celerys
    assert ours["uuid"] == outgoing.celery_id


def test_results_are_sent_where_they_are_waited_for(make_app):
    """To the given queue; without one, to the queue that Celery would name."""
    app, outgoing = make_app(), outgoing_for("q")
    for given, expected in (("replies", "replies"), (None, app.thread_oid)):
        (publication,) = Messages(app, given).publications(outgoing)
        assert publication.options["reply_to"] == expected


def test_a_template_fills_each_message_anew(make_app):
    """Each delivery tag is used once, and nothing of a message is left in the next."""
    template = template_of(Messages(make_app()))
    raw = [json.loads(template.fill(str(number), f"payload {number}")) for number in range(3)]
    assert len({filled["properties"]["delivery_tag"] for filled in raw}) == 3
    for number, filled in enumerate(map(decoded, raw)):
        assert filled["body"][0] == [f"payload {number}"]
        assert {filled["headers"][name] for name in ("id", "root_id")} == {str(number)}
        assert filled["properties"]["correlation_id"] == str(number)


@pytest.mark.parametrize("missing", ["id", "repr", "body", "tag"])
def test_a_template_without_a_hole_is_refused(missing, make_app):
    """Such as one whose body is not in base64: every message would be the same."""
    body = base64.b64encode(message._BODY.encode()).decode()
    holes = {"id": message._ID, "repr": message._REPR, "body": body, "tag": "a-tag"}
    text = json.dumps({**holes, missing: "something else"})
    with pytest.raises(ValueError, match=f"no place for {missing}"):
        Template(text, "a-tag", Messages(make_app()))


def test_a_message_that_cannot_be_made_is_rejected(make_app):
    """It holds up none of the others, and each keeps its reason."""
    queues = (Queue("q"), Queue("other"))
    app = make_app(task_queues=queues, task_create_missing_queues=False, task_default_queue="q")
    broken = outgoing_for("q", token="\ud800")
    batch = [outgoing_for("q"), broken, outgoing_for("unknown"), outgoing_for("q"), outgoing_for("other")]
    broker = ChannelBroker(app, timeout=5)
    broker.connect()
    rejected = broker.send(batch, "receipt")
    assert [refusal.outgoing for refusal in rejected] == [batch[1], batch[2]]
    assert "surrogates not allowed" in rejected[0][1]
    assert "Queue 'unknown' missing from task_queues" in rejected[1][1]
    assert [raw["headers"]["id"] for raw in stored("q")] == [batch[0].celery_id, batch[3].celery_id]
    assert [raw["headers"]["id"] for raw in stored("other")] == [batch[4].celery_id]


@example("x" * 1019)
@example("x" * 1020)
@example("x" * 1021)
@example("x" * 1023)
@example("a b" * 400)
@example("'" * 600)
@given_that(st.text(st.sampled_from("x '\"\\\n\u00e9"), max_size=1200))
def test_the_shortened_arguments_are_those_of_celery(payload: str) -> None:
    """Whatever the workload's text is like, and where it is cut."""
    app = Celery(set_as_current=False)
    assert Messages(app, "reply").argsrepr(payload) == saferepr((payload,), app.amqp.argsrepr_maxsize)
