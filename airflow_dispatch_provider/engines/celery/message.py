# SPDX-License-Identifier: Apache-2.0
"""The message for a Celery worker: Celery's own, with the workload filled in."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from celery import Celery, signals
from celery.utils.text import truncate

from airflow_dispatch_provider.engines.celery._outgoing import Outgoing as Outgoing

TASK_NAME = "execute_workload"
"""The task that ``airflow celery worker`` registers."""

_QUEUES = 1_000
"""Queues for which a template is kept."""

_ID, _REPR, _BODY = (f"dispatch-hole-{uuid.uuid4()}" for _ in range(3))
_JSON = {"content_type": "application/json", "content_encoding": "utf-8"}
"""Content type and encoding that kombu's ``json`` serializer gives."""


@dataclass(frozen=True, slots=True)
class Publication:
    """The arguments of kombu's ``Producer.publish``."""

    body: Any

    declare: tuple[Any, ...]
    """Queues and exchanges that have to exist before."""

    options: Mapping[str, Any]


class Messages:
    """Makes the messages of one Celery app. Not thread-safe."""

    def __init__(self, app: Celery, reply_to: str | None = None) -> None:
        """
        :param reply_to: queue for the results of ``rpc://``; the app's own for this thread if None
        """
        self.app = app
        self._reply_to = reply_to or app.thread_oid
        self._uniform: dict[str, Publication] = {}

    @cached_property
    def are_uniform(self) -> bool:
        """Whether the messages of one queue differ in nothing but id and workload, and can be made of a template:
        nobody listens to Celery's signals or asked for ``task-sent`` events, nothing routes them one by one,
        and they are written as JSON."""
        senders = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
        conf, own = self.app.conf, self.app.tasks[TASK_NAME]._get_exec_options()
        special = conf.task_send_sent_event or conf.task_routes or conf.task_compression
        annotated = own["compression"] or own["expires"] is not None
        plain = own["serializer"] == "json" and conf.task_protocol == 2
        return plain and not special and not annotated and not any(sender.receivers for sender in senders)

    def publications(self, outgoing: Outgoing) -> list[Publication]:
        """The messages that Celery would publish for a workload: the task itself, and an event where that is asked for.

        Raises what pydantic or a serializer raises; what a signal's receiver raises, Celery logs.
        """
        payload = outgoing.payload()
        if not self.are_uniform:
            return self._record(outgoing.celery_id, payload, outgoing.queue)
        sample = self.sample(outgoing.queue)
        own = {"id": outgoing.celery_id, "root_id": outgoing.celery_id, "argsrepr": self.argsrepr(payload)}
        options = {
            **sample.options,
            "headers": {**sample.options["headers"], **own},
            "correlation_id": outgoing.celery_id,
        }
        return [Publication(self.body(payload), sample.declare, options)]

    def sample(self, queue: str) -> Publication:
        """The message for a queue, with placeholders for id and workload."""
        if queue not in self._uniform:
            if len(self._uniform) >= _QUEUES:
                del self._uniform[next(iter(self._uniform))]
            (recorded,) = self._record(_ID, "", queue, argsrepr=_REPR)
            options = {**recorded.options, **_JSON}
            del options["serializer"]
            self._uniform[queue] = Publication(_BODY, recorded.declare, options)
        return self._uniform[queue]

    def body(self, payload: str) -> str:
        """The JSON text of a message's body."""
        head, tail = self._around_payload
        return f"{head}{json.dumps(payload)}{tail}"

    def argsrepr(self, payload: str) -> str:
        """The shortened arguments that Celery's worker logs and Flower shows.

        What Celery's ``saferepr`` makes of a tuple with one text, without its search for nested values, which takes
        longer than all the rest of a message.
        """
        room = int(self.app.amqp.argsrepr_maxsize) - 1
        text = truncate(payload, room).replace("'", "\\'")
        return f"('{text}',)" if len(text) + 2 < room else f"('{text}', ..."

    @cached_property
    def _around_payload(self) -> tuple[str, str]:
        recorded = self._record(_ID, _BODY, self.app.conf.task_default_queue)[0]
        head, _, tail = json.dumps(recorded.body).partition(json.dumps(_BODY))
        return head, tail

    def _record(self, celery_id: str, payload: str, queue: str, **more: Any) -> list[Publication]:
        """Let Celery publish into a list. ``Task.apply_async`` does the same, but talks to the result backend."""
        app, task = self.app, self.app.tasks[TASK_NAME]
        arguments: tuple[Any, Any] = (payload,), {}
        options = {**task._get_exec_options(), "queue": queue}
        options = app.amqp.router.route(options, TASK_NAME, *arguments, task)
        expires = options.pop("expires", None)
        if expires is not None:
            options["expiration"] = max(0, expires)
        message = app.amqp.create_task_message(
            celery_id,
            TASK_NAME,
            *arguments,
            reply_to=self._reply_to,
            create_sent_event=app.conf.task_send_sent_event,
            ignore_result=bool(task.ignore_result),
            expires=expires,
            time_limit=options.pop("time_limit", None),
            soft_time_limit=options.pop("soft_time_limit", None),
            **more,
        )
        recorder = Recorder()
        app.amqp.send_task_message(recorder, TASK_NAME, message, **options)
        return recorder.publications


class Recorder:
    """Stands in for a kombu Producer, and publishes nothing."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []

    def publish(self, body: Any, declare: Any = None, **options: Any) -> None:
        """Time-outs and retries are the outbox's affair."""
        for name in ("retry", "retry_policy", "timeout", "confirm_timeout"):
            options.pop(name, None)
        self.publications.append(Publication(body, tuple(declare or ()), options))


class Template:
    """The text of a message as a transport stores it, with holes: a fraction of the cost of making each anew.

    The transport's own code writes the text once, from ``Messages.sample``; what is left of its placeholders
    are the holes.
    """

    def __init__(self, text: str, delivery_tag: str, messages: Messages) -> None:
        """
        :param delivery_tag: the one in the text; every message gets its own
        :raises ValueError: where the transport has written the body otherwise than in base64
        """
        self._messages = messages
        body = base64.b64encode(_BODY.encode()).decode()
        holes = {_ID: "id", _REPR: "repr", body: "body", delivery_tag: "tag"}
        parts = re.split("|".join(f"({re.escape(hole)})" for hole in holes), text)
        self._parts = [part for part in parts if part]
        self._holes = [(place, holes[part]) for place, part in enumerate(self._parts) if part in holes]
        missing = set(holes.values()) - {hole for _, hole in self._holes}
        if missing:
            raise ValueError(f"The message has no place for {', '.join(sorted(missing))}.")

    def fill(self, celery_id: str, payload: str) -> str:
        """The text of the message for one workload."""
        values = {
            "id": celery_id,
            "repr": json.dumps(self._messages.argsrepr(payload))[1:-1],
            "body": base64.b64encode(self._messages.body(payload).encode()).decode(),
            "tag": str(uuid.uuid4()),
        }
        parts = self._parts.copy()
        for place, hole in self._holes:
            parts[place] = values[hole]
        return "".join(parts)
