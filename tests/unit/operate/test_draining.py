# SPDX-License-Identifier: Apache-2.0
"""A backend is empty when every scheduler has the order, and nothing of any is out."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.bridge.database.tables import OrderRow
from airflow_dispatch_provider.operate.draining import NotDrained, left

from .documents import NOW, backend, document, reading

DRAIN = OrderRow("", "a", "drain", "ann", "", NOW - 5, None)
CLOSED = backend("a", state="cordoned")


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([document("1", backends=[CLOSED]), document("2", backends=[CLOSED])], None),
        # Recalled: nothing is out, and may yet begin.
        ([document("1", backends=[CLOSED], returning={"a": 3})], "3 are being set back to scheduled"),
        ([document("1", backends=[CLOSED], returning={"b": 3})], None),
        (
            [document("1", backends=[CLOSED]), document("2", returning={"a": 2}, written=NOW - 300)],
            "2 ran there when scheduler 2 wrote last",
        ),
        # Taken out of the file, and forgotten.
        ([document("1")], None),
        ([document("1", backends=[backend("a", used=2, ahead=1)])], "3 run there"),
        ([document("1", backends=[CLOSED]), document("2", backends=[backend("a")])], "not every scheduler"),
        # Full, or failing: nothing is free, and yet the order has not come.
        ([document("1", backends=[backend("a", state="failing", free=0)])], "not every scheduler"),
        ([document("1", backends=[CLOSED], written=NOW - 300)], "no scheduler that lives"),
        ([document("1", backends=[CLOSED]), document("2", version=99)], "not known what every scheduler has"),
        (
            [
                document("1", backends=[CLOSED]),
                document("2", backends=[backend("a", used=4)], written=NOW - 300),
            ],
            "4 ran there when scheduler 2 wrote last",
        ),
        # They have long been adopted.
        (
            [
                document("1", backends=[CLOSED]),
                document("2", backends=[backend("a", used=4)], written=NOW - 900),
            ],
            None,
        ),
        (
            [document("1", team="blue", backends=[backend("a", used=4)]), document("2", backends=[CLOSED])],
            None,
        ),
    ],
)
def test_empty_or_not(rows, why):
    """And why it is not known to be."""
    found = left(reading(*rows, orders=[DRAIN]), "a", None)
    assert found is None if why is None else found is not None and why in found


def test_an_order_that_is_over():
    """Nobody waits for what will not come."""
    with pytest.raises(NotDrained, match="no longer in force"):
        left(reading(document("1", backends=[CLOSED])), "a", None)
