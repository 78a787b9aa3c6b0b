# SPDX-License-Identifier: Apache-2.0
"""The brokers and the proxy of these tests fail in the way that they are asked to."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import amqp
import kombu
import pytest
import redis

from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.rabbitmq import RabbitServer
from devkit.servers.valkey import ValkeyServer

from .conftest import Broker

needs_redis = pytest.mark.integration("redis")
needs_rabbitmq = pytest.mark.integration("rabbitmq")

PING, PONG = b"PING\r\n", b"+PONG\r\n"


def redis_client(url: str, timeout: float = 20) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=timeout, retry=None)


def amqp_connection(url: str) -> kombu.Connection:
    return kombu.Connection(url, connect_timeout=5, transport_options={"confirm_publish": True})


def connect_to_amqp(url: str) -> None:
    """Once; kombu would try again."""
    address = urlsplit(url)
    amqp.Connection(f"{address.hostname}:{address.port}", connect_timeout=0.5).connect()


def messages_in(queue: str, url: str) -> int:
    with amqp_connection(url) as connection:
        return connection.default_channel.queue_declare(queue, passive=True).message_count


def put(queue: str, url: str) -> None:
    with amqp_connection(url) as connection, connection.SimpleQueue(queue) as messages:
        messages.put({"is": "a message"})


def assert_refuses(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def assert_resets(port: int) -> None:
    """Either at once, or on the first use."""
    with pytest.raises(ConnectionResetError), connect(port) as connection:
        connection.recv(100)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20)


def assert_unanswered(connection: socket.socket) -> None:
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(100)
    connection.settimeout(20)


class TestValkey:
    pytestmark = needs_redis

    @pytest.mark.parametrize(("empty", "kept"), [(False, b"1"), (True, None)])
    def test_a_killed_one_comes_back(self, own_valkey: ValkeyServer, empty: bool, kept: bytes | None) -> None:
        url = own_valkey.url()
        with redis_client(url) as client:
            client.set("key", 1)
        own_valkey.kill()
        assert_refuses(own_valkey.port)
        own_valkey.restart(empty=empty)
        assert own_valkey.url() == url
        with redis_client(url) as client:
            assert client.get("key") == kept

    def test_in_memory_the_data_end_with_the_process(self) -> None:
        with ValkeyServer() as server, redis_client(server.url()) as client:
            client.set("key", 1)
            server.restart()
            client.close()
            assert client.get("key") is None

    def test_a_paused_one_answers_nothing(self, own_valkey: ValkeyServer) -> None:
        with redis_client(own_valkey.url(), timeout=0.3) as impatient:
            own_valkey.pause()
            with pytest.raises(redis.TimeoutError):
                impatient.ping()
        own_valkey.resume()
        with redis_client(own_valkey.url()) as client:
            assert client.ping()

    def test_a_password_is_asked_for(self) -> None:
        with ValkeyServer(password="a/b@c d") as server:
            with redis_client(server.url(db=2)) as client:
                assert client.ping()
            with (
                redis_client(f"redis://127.0.0.1:{server.port}") as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.ping()

    def test_nothing_is_left_of_it(self, own_valkey: ValkeyServer) -> None:
        folder = own_valkey.folder
        own_valkey.pause()
        own_valkey.stop()
        own_valkey.stop()
        assert not folder.exists()
        assert_refuses(own_valkey.port)


@needs_rabbitmq
def test_a_rabbitmq_is_frozen_killed_and_emptied(own_rabbitmq: RabbitServer) -> None:
    url = own_rabbitmq.url()
    put("jobs", url)
    own_rabbitmq.pause()
    with pytest.raises(TimeoutError):
        connect_to_amqp(url)
    own_rabbitmq.resume()
    assert messages_in("jobs", url) == 1
    own_rabbitmq.kill()
    assert_refuses(own_rabbitmq.port)
    own_rabbitmq.restart()
    assert own_rabbitmq.url() == url
    assert messages_in("jobs", url) == 1
    own_rabbitmq.restart(empty=True)
    with pytest.raises(amqp.NotFound):
        messages_in("jobs", url)


class TestProxy:
    pytestmark = needs_redis

    @pytest.fixture
    def proxy(self, proxy_to: Callable[[Broker], FaultyProxy], valkey: ValkeyServer) -> FaultyProxy:
        return proxy_to(valkey)

    @pytest.fixture
    def client(self, proxy: FaultyProxy, valkey: ValkeyServer) -> Iterator[redis.Redis]:
        with redis_client(proxy.url(valkey.url())) as client:
            client.flushall()
            yield client

    @pytest.fixture
    def connection(self, proxy: FaultyProxy) -> Iterator[socket.socket]:
        """One that has been used."""
        with connect(proxy.port) as connection:
            connection.sendall(PING)
            assert connection.recv(100) == PONG
            yield connection

    def test_forward(self, client: redis.Redis) -> None:
        payload = bytes(5_000_000)
        client.set("key", payload)
        assert client.get("key") == payload

    def test_delay(self, proxy: FaultyProxy, connection: socket.socket) -> None:
        proxy.delay = 0.1
        began = time.monotonic()
        connection.sendall(PING)
        assert connection.recv(100) == PONG
        assert time.monotonic() - began >= 0.2

    def test_refuse(self, proxy: FaultyProxy, client: redis.Redis, connection: socket.socket) -> None:
        proxy.mode = "refuse"
        assert connection.recv(100) == b""
        assert_refuses(proxy.port)
        proxy.mode = "forward"
        assert client.ping()

    def test_hang(self, proxy: FaultyProxy, connection: socket.socket) -> None:
        proxy.mode = "hang"
        with connect(proxy.port) as new:
            for each in (connection, new):
                each.sendall(PING)
                assert_unanswered(each)
            proxy.mode = "forward"
            for each in (connection, new):
                assert each.recv(100) == PONG

    def test_reset(self, proxy: FaultyProxy, client: redis.Redis, connection: socket.socket) -> None:
        proxy.mode = "reset"
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
        assert_resets(proxy.port)
        proxy.mode = "forward"
        assert client.ping()

    def test_a_batch_is_cut_in_the_middle(self, proxy: FaultyProxy, client: redis.Redis) -> None:
        proxy.cut_after(50_000, "up")
        batch = client.pipeline(transaction=False)
        for _ in range(1000):
            batch.rpush("list", "x" * 1000)
        with pytest.raises(redis.ConnectionError):
            batch.execute()
        assert proxy.cuts == 1
        assert 40 <= client.llen("list") < 50

    def test_a_reply_is_lost(self, proxy: FaultyProxy, client: redis.Redis) -> None:
        client.ping()
        proxy.cut_after(0, "down")
        with pytest.raises(redis.ConnectionError):
            client.incr("count")
        assert client.get("count") == b"1"

    def test_a_reply_is_cut(self, proxy: FaultyProxy, connection: socket.socket) -> None:
        proxy.cut_after(3, "down")
        connection.sendall(PING)
        assert connection.recv(100) == PONG[:3]
        with pytest.raises(ConnectionResetError):
            connection.recv(100)

    def test_the_server_ends_a_connection(self, connection: socket.socket, valkey: ValkeyServer) -> None:
        with redis_client(valkey.url()) as other:
            other.client_kill_filter(_type="normal", skipme=True)
        assert connection.recv(100) == b""

    def test_a_server_that_is_down(
        self, proxy_to: Callable[[Broker], FaultyProxy], own_valkey: ValkeyServer
    ) -> None:
        proxy = proxy_to(own_valkey)
        own_valkey.kill()
        assert_resets(proxy.port)

    def test_nothing_is_left_of_it(self, valkey: ValkeyServer) -> None:
        with FaultyProxy("127.0.0.1", valkey.port) as proxy, connect(proxy.port) as connection:
            proxy.stop()
            assert connection.recv(100) == b""
        assert_refuses(proxy.port)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("faulty-proxy")]


@needs_rabbitmq
def test_rabbitmq_through_a_proxy(rabbitmq: Broker, proxy_to: Callable[[Broker], FaultyProxy]) -> None:
    proxy = proxy_to(rabbitmq)
    url = proxy.url(rabbitmq.url())
    queue = f"dispatch-test-{uuid.uuid4()}"
    put(queue, url)
    proxy.mode = "reset"
    with pytest.raises(ConnectionResetError):
        connect_to_amqp(url)
    proxy.mode = "forward"
    assert messages_in(queue, url) == 1
    with amqp_connection(url) as connection:
        connection.default_channel.queue_delete(queue)
