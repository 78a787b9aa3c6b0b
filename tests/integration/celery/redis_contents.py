# SPDX-License-Identifier: Apache-2.0
"""Contents of a Redis broker, and the commands that it was given."""

from __future__ import annotations

import base64
import json
from typing import Any

import redis

from airflow_dispatch_provider.engines.celery.message import Outgoing
from airflow_dispatch_provider.lifecycle.events import Rejected, Sent
from devkit.servers.valkey import ValkeyServer

from .publishing import Publisher, results


def connect(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.url(), retry=None)


def assert_only_every_second_is_sent(publisher: Publisher, batch: list[Outgoing], reason: str) -> None:
    """And the others fail for that reason, with nothing the matter with the broker."""
    reports = results(publisher, batch)
    assert [publisher.outgoing(each) for each in reports if isinstance(each, Sent)] == batch[1::2]
    failed = {publisher.outgoing(each): each.reason for each in reports if isinstance(each, Rejected)}
    assert set(failed) == {*batch[::2]}
    assert all(reason in given for given in failed.values())
    assert publisher.problem is None


def stored(client: redis.Redis, key: str) -> list[dict[str, Any]]:
    """The messages in a list, the oldest first, with their bodies decoded."""
    messages = [json.loads(text) for text in reversed(client.lrange(key, 0, -1))]
    for message in messages:
        body = message["body"]
        if message["properties"].get("body_encoding"):
            message["body"] = base64.b64decode(body)
        elif isinstance(body, dict):  # bytes, which kombu reads as text's equal
            message["body"] = body["__value__"]
    return messages


def everything(client: redis.Redis) -> dict[str, Any]:
    """Lists with messages but for what differs from one message to the next, sets, and which keys expire."""
    found: dict[str, Any] = {}
    for key in sorted(key.decode() for key in client.scan_iter()):
        if "_airflow_dispatch." in key:
            continue
        if client.type(key) == b"list":
            found[key] = stored(client, key)
            for message in found[key]:
                del message["properties"]["delivery_tag"], message["properties"]["reply_to"]
        else:
            found[key] = client.smembers(key) if client.type(key) == b"set" else client.type(key)
        found[f"expires {key}"] = client.pttl(key) > 0
    return found


def calls_of(client: redis.Redis, command: str) -> int:
    return client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


def replies_before_exec(commands: int) -> int:
    """How many bytes a server answers before it executes a transaction: to the PING before it, and to its commands."""
    return len("+PONG\r\n") + len("+OK\r\n") + commands * len("+QUEUED\r\n")
