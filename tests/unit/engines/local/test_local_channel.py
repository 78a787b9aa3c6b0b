# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
import socket
import struct

import pytest

from airflow_dispatch_provider.engines.local.channel import Channel
from airflow_dispatch_provider.engines.local.messages import Ended, Run, Started


@pytest.fixture
def sockets():
    pair = socket.socketpair()
    yield pair
    for sock in pair:
        sock.close()


@pytest.fixture
def ends(sockets):
    return Channel(sockets[0]), Channel(sockets[1])


def drain(sender, receiver):
    messages = []
    while sender.pending:
        sender.flush()
        messages += receiver.receive()
    return messages + receiver.receive()


def test_messages_arrive_whole_and_in_order(ends):
    """Messages are received in the order of sending, as equal objects."""
    sent = [Run(1, "a", b"x" * 10), Started(1, 42, 1.5), Ended(1, -9, "why")]
    for message in sent:
        ends[0].send(message)
    assert ends[1].receive() == sent
    assert ends[1].receive() == []


def test_a_message_that_arrives_in_pieces_is_given_out_once_complete(sockets):
    """Byte by byte, two messages: each appears with its last byte."""
    receiver = Channel(sockets[1])
    body = pickle.dumps("hello")
    frame = struct.pack("!I", len(body)) + body
    received = []
    for index, byte in enumerate(frame * 2):
        sockets[0].send(bytes([byte]))
        received += [(index, message) for message in receiver.receive()]
    assert received == [(len(frame) - 1, "hello"), (2 * len(frame) - 1, "hello")]


def test_a_peer_that_does_not_read_delays_nobody(ends):
    """Bytes that the socket does not take wait in the outbox, and arrive later without loss."""
    sent = [bytes([n]) * 100_000 for n in range(20)]
    for message in sent:
        ends[0].send(message)
    assert ends[0].pending > 0
    assert drain(*ends) == sent
    assert ends[0].pending == 0


def test_what_was_sent_before_the_end_is_still_received(ends):
    """The end of the stream is seen after the last message, not instead of it."""
    ends[0].send("last words")
    ends[0].close()
    assert ends[1].receive() == ["last words"]
    assert ends[1].closed


def test_last_words_survive_a_failed_send(ends):
    """A send to a peer that is gone raises nothing and loses nothing that was received."""
    ends[0].send("last words")
    ends[0].close()
    ends[1].send("too late")
    assert ends[1].pending == 0
    assert ends[1].receive() == ["last words"]


def test_an_unfinished_message_of_a_dead_peer_is_dropped(sockets):
    """Half a frame is not a message."""
    receiver = Channel(sockets[1])
    sockets[0].send(struct.pack("!I", 100) + b"half")
    sockets[0].close()
    assert receiver.receive() == []
    assert receiver.closed


def test_wait_sees_messages_and_time_passing(ends):
    """True once there is something to receive, False when the time is over."""
    assert not ends[1].wait(0)
    ends[0].send("x")
    assert ends[1].wait(5)


def test_one_that_has_finished_still_receives(ends):
    """Its peer sees the end, and has the last word."""
    ends[0].finish()
    assert ends[1].receive() == []
    assert ends[1].closed
    ends[1].send("last")
    ends[1].close()
    assert ends[0].receive() == ["last"]
