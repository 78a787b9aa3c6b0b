# SPDX-License-Identifier: Apache-2.0
"""The router's rows in Airflow's event log."""

from __future__ import annotations

import json

import pytest

from airflow_dispatch_provider.bridge.event_log import (
    CHANGED_FILE,
    dispatched_extra,
    file_row,
    json_of,
    object_in,
)
from airflow_dispatch_provider.routing.model import Target
from airflow_dispatch_provider.routing.reasons import Reason


@pytest.mark.parametrize("letter", ["x", "\u00e4", "\U0001f600"])
def test_a_row_about_a_file_fits_into_every_database(letter: str) -> None:
    """``TEXT`` of MySQL ends at 64 kB, and a row that does not fit takes all others of its heartbeat along."""
    extra = file_row(CHANGED_FILE, "/etc/dispatch.yaml", letter * 100_000, "red").extra or ""
    assert len(extra.encode()) < 65_536
    assert json.loads(extra)["detail"].endswith(" ...")


@pytest.mark.parametrize(
    ("reason", "before"),
    [
        (Reason.FIRST_CHOICE, ""),
        (Reason.OVERFLOW, "a target before it is full and the route lets tasks overflow; "),
    ],
)
def test_what_is_given_ahead_is_not_said_to_have_a_slot(reason, before):
    """Its story tells what it waits for, and why at that target."""
    extra = json.loads(dispatched_extra(Target(backend="a"), "q", reason, ahead=True))
    after = "given ahead: it starts there in the next slot that becomes free, unless it is taken back"
    assert (extra["reason"], extra["detail"]) == (reason.value, before + after)
    assert json.loads(dispatched_extra(Target(backend="a"), "q", reason))["detail"] == reason.words


def test_what_no_text_has_is_neither_written_nor_read() -> None:
    """A NUL keeps PostgreSQL from reading any of a document, half a character the API server from answering.
    Backslashes that a text has itself stay."""
    nasty = {"a\0": ["x\udcffy", {"b": r"C:\\u0000 \\ud800"}], "n": 1, "smile": "\N{SNOWMAN}\U0001f600"}
    plain = {"a\ufffd": ["x\ufffdy", {"b": r"C:\\u0000 \\ud800"}], "n": 1, "smile": "\N{SNOWMAN}\U0001f600"}
    assert json.loads(json_of(nasty)) == plain
    assert object_in(json.dumps(nasty)) == plain
