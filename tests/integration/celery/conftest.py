# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol
from urllib.parse import urlsplit

import pytest
from support import require

from devkit.servers import rabbitmq as rabbitmq_server
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.rabbitmq import ForeignRabbit, RabbitServer
from devkit.servers.valkey import ValkeyServer

RABBITMQ_URL = "DISPATCH_TEST_RABBITMQ"


class Broker(Protocol):
    def url(self) -> str: ...


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    """A server that the tests of a module share, and leave running."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A server that a test may kill; its data outlive it."""
    with ValkeyServer(appendonly=True) as server:
        yield server


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[Broker]:
    """A server that the tests of a module share, and leave running; the one of $DISPATCH_TEST_RABBITMQ if set."""
    if url := os.environ.get(RABBITMQ_URL):
        yield ForeignRabbit(url)
        return
    _require_rabbitmq()
    with RabbitServer() as server:
        yield server


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitServer]:
    """A server that a test may kill; its data outlive it."""
    _require_rabbitmq()
    with RabbitServer() as server:
        yield server


@pytest.fixture
def proxy_to() -> Iterator[Callable[[Broker], FaultyProxy]]:
    """Starts proxies in front of brokers."""
    with ExitStack() as stack:

        def make(server: Broker) -> FaultyProxy:
            address = urlsplit(server.url())
            default_port = 5672 if address.scheme.startswith("amqp") else 6379
            return stack.enter_context(
                FaultyProxy(address.hostname or "127.0.0.1", address.port or default_port)
            )

        yield make


def _require_rabbitmq() -> None:
    require(
        rabbitmq_server.is_installed(),
        "RabbitMQ is not installed: on Debian or Ubuntu, apt-get install rabbitmq-server; elsewhere, set "
        f"{RABBITMQ_URL} to the amqp:// URL of one (for the tests that do not kill it)",
    )
