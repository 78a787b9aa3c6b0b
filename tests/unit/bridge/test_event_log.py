# SPDX-License-Identifier: Apache-2.0
"""The router's rows in Airflow's event log."""

from __future__ import annotations

import json

import pytest

from airflow_dispatch_provider.bridge.event_log import CHANGED_FILE, file_row


@pytest.mark.parametrize("letter", ["x", "\u00e4", "\U0001f600"])
def test_a_row_about_a_file_fits_into_every_database(letter: str) -> None:
    """``TEXT`` of MySQL ends at 64 kB, and a row that does not fit takes all others of its heartbeat along."""
    extra = file_row(CHANGED_FILE, "/etc/dispatch.yaml", letter * 100_000, "red").extra or ""
    assert len(extra.encode()) < 65_536
    assert json.loads(extra)["detail"].endswith(" ...")
