# SPDX-License-Identifier: Apache-2.0
"""Publishing and waiting: Airflow's CeleryExecutor and this package's, on the same broker, in turn.

  scheduler thread   time inside heartbeat() until everything is with the broker, for each task
  longest heartbeat  the longest of those
  published          tasks a second, from the first heartbeat until the last is with the broker
  nothing changed    one heartbeat while all tasks run and no result comes
  bound              the same messages, made beforehand, through one connection: pipelined LPUSH, or one channel
  made and sent      what this package's broker thread does, without the scheduler's thread beside it in the interpreter
  scheduler alone    what its scheduler's thread does for a task, without the broker thread beside it

Redis is Valkey from a wheel; RabbitMQ is the one of $DISPATCH_TEST_RABBITMQ, or is started where it is installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from devkit.bench.comparison import Figures, benchmark_parser, lines, tell
from devkit.bench.without_database import without_database
from devkit.servers.rabbitmq import ForeignRabbit, RabbitServer
from devkit.servers.valkey import ValkeyServer

os.environ["AIRFLOW__CORE__PARALLELISM"] = "1000000"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"  # Airflow logs to stdout, where the figures go
SUBJECTS = {
    "airflow": "airflow.providers.celery.executors.celery_executor",
    "dispatch": "airflow_dispatch_provider.executors.celery_executor",
}
ROWS = {
    "thread": "scheduler thread, us a task",
    "longest": "longest heartbeat, ms",
    "published": "published a second",
    "idle": "nothing changed, ms",
}
_MAX_UNSENT = "AIRFLOW__DISPATCH__CELERY_MAX_UNSENT"
BATCH = 250
"""As many as the executor lets be on their way by default."""

ALONE = {
    "bound": "bound, messages a second",
    "sent": "made and sent, a second",
    "handed": "scheduler alone, a second",
}


@contextmanager
def executor_of(subject: str) -> Iterator[Any]:
    module = __import__(SUBJECTS[subject], fromlist=["CeleryExecutor"])
    executor = module.CeleryExecutor(parallelism=1_000_000)
    executor.job_id = 1
    without_database(executor)
    executor.start()
    try:
        yield executor
    finally:
        executor.end()


def measure(subject: str, tasks: list[Any], running: list[Any]) -> Figures:
    """:param tasks: to publish; ``running`` to publish first and leave there"""
    gc.collect()
    gc.freeze()  # a collection of all that a benchmark has made would be the longest heartbeat
    with executor_of(subject) as executor:
        publish(executor, tasks[:50])
        executor.get_event_buffer()
        began = time.perf_counter()
        beats = publish(executor, tasks[50:])
        seconds = time.perf_counter() - began
        publish(executor, running)
        time.sleep(2)  # the threads finish what they do for new tasks
        idle = [timed(executor) for _ in range(20)]
    number = len(tasks) - 50
    return {
        "thread": sum(beats) / number * 1e6,
        "longest": max(beats) * 1e3,
        "published": number / seconds,
        "idle": statistics.median(idle) * 1e3,
    }


def publish(executor: Any, tasks: list[Any]) -> list[float]:
    """Queue them all and let the executor work until each is with the broker; seconds of each heartbeat."""
    for task in tasks:
        executor.queue_workload(task, None)
    beats: list[float] = []
    sent = 0
    while sent < len(tasks):
        beats.append(timed(executor))
        sent += len(executor.get_event_buffer())
        time.sleep(0.001)
    return beats


def timed(executor: Any) -> float:
    began = time.perf_counter()
    executor.heartbeat()
    return time.perf_counter() - began


def bound_redis(url: str, number: int) -> float:
    """Messages a second."""
    import redis

    client = redis.Redis.from_url(url)
    text = client.lindex("default", 0)
    began = time.perf_counter()
    for first in range(0, number, 500):
        with client.pipeline(transaction=False) as pipe:
            for _ in range(min(500, number - first)):
                pipe.lpush("bound", text)
            pipe.execute()
    return number / (time.perf_counter() - began)


def bound_amqp(url: str, number: int) -> float:
    """Messages a second, unconfirmed."""
    import kombu

    channel = kombu.Connection(url).channel()
    got = kombu.Queue("default", channel=channel)(channel).get(no_ack=True)
    body, headers, kind = got.body, got.headers, {"correlation_id": "x", "delivery_mode": 2}
    began = time.perf_counter()
    for _ in range(number):
        message = channel.prepare_message(body, 0, "application/json", "utf-8", headers, dict(kind))
        channel.basic_publish(message, exchange="", routing_key="default")
    return number / (time.perf_counter() - began)


def made_and_sent(tasks: list[Any]) -> float:
    """Messages a second by the engine's own way to the broker, in this thread, batch by batch."""
    from airflow_dispatch_provider.engines.celery.brokers import broker_for
    from airflow_dispatch_provider.engines.celery.message import Outgoing
    from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor

    broker = broker_for(CeleryExecutor(parallelism=1).celery_app, 5.0, queued_timeout=600.0)
    broker.connect()
    outgoing = [Outgoing(str(task.ti.id), task.ti.id, task, task.ti.queue) for task in tasks]
    began = time.perf_counter()
    for first in range(0, len(outgoing), BATCH):
        broker.send(outgoing[first : first + BATCH], uuid.uuid4().hex)
    seconds = time.perf_counter() - began
    broker.close()
    return len(tasks) / seconds


def scheduler_alone(tasks: list[Any]) -> float:
    """Tasks a second that a heartbeat can hand over where nothing is sent meanwhile: its broker does not answer."""
    from airflow_dispatch_provider.engines.celery.brokers import ChannelBroker
    from airflow_dispatch_provider.executors.celery_executor import CeleryExecutor

    no_session: Any = None
    silence = threading.Event()
    executor = CeleryExecutor(parallelism=1_000_000)
    executor.job_id = 1
    without_database(executor)
    os.environ[_MAX_UNSENT] = str(len(tasks))
    with patch.object(ChannelBroker, "connect", lambda self: silence.wait()):
        executor.start()
        for task in tasks:
            executor.queue_workload(task, no_session)
        seconds = timed(executor)
        assert executor.slots_occupied == len(tasks)
        executor.terminate()
        silence.set()
    del os.environ[_MAX_UNSENT]
    return len(tasks) / seconds


def purge(url: str) -> None:
    import kombu

    with kombu.Connection(url) as connection:
        channel = connection.channel()
        for name in ("default", "bound"):
            kombu.Queue(name, channel=channel)(channel).declare()
            kombu.Queue(name, channel=channel)(channel).purge()


def bench(kind: str, url: str, results: str, options: argparse.Namespace) -> dict[str, Any]:
    from airflow_dispatch_provider.testing import make_task

    os.environ["AIRFLOW__CELERY__BROKER_URL"] = url
    os.environ["AIRFLOW__CELERY__RESULT_BACKEND"] = results
    found: dict[str, Any] = {subject: [] for subject in SUBJECTS}
    alone: dict[str, list[float]] = {name: [] for name in ALONE}
    for run in range(options.runs + 1):  # the first one warms up
        for subject in SUBJECTS:
            tasks = [make_task() for _ in range(options.tasks + 50)]
            figures = measure(subject, tasks, [make_task() for _ in range(options.running)])
            if run:
                found[subject].append(figures)
            tell(f"{kind}, run {run} of {options.runs}, {subject}", ROWS, figures)
        alone["bound"].append((bound_redis if kind == "redis" else bound_amqp)(url, options.tasks))
        alone["sent"].append(made_and_sent([make_task() for _ in range(options.tasks)]))
        alone["handed"].append(scheduler_alone([make_task() for _ in range(options.tasks)]))
        purge(url)
    return {"broker": kind, "subjects": found, **{name: values[1:] for name, values in alone.items()}}


def print_table(result: dict[str, Any]) -> None:
    theirs = statistics.median(run["published"] for run in result["subjects"]["airflow"])
    bounds = [(title, result[name], theirs) for name, title in ALONE.items()]
    print("", *lines(result["broker"], ROWS, result["subjects"], bounds), sep="\n")


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--tasks", type=int, default=5_000, help="to publish (default: %(default)s)")
    parser.add_argument("--running", type=int, default=5_000, help="more, to wait for (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--brokers", nargs="+", choices=("redis", "rabbitmq"), default=["redis", "rabbitmq"])
    options = parser.parse_args()
    with ExitStack() as stack:
        redis_server = stack.enter_context(ValkeyServer())
        urls = {"redis": redis_server.url()}
        if "rabbitmq" in options.brokers:
            given = os.environ.get("DISPATCH_TEST_RABBITMQ")
            rabbit = ForeignRabbit(given) if given else stack.enter_context(RabbitServer())
            urls["rabbitmq"] = rabbit.url()
        found = [bench(kind, urls[kind], redis_server.url(1), options) for kind in options.brokers]
    if options.output == "json":
        print(json.dumps(found, indent=2))
    else:
        for result in found:
            print_table(result)
