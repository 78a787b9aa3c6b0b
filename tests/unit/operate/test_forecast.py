# SPDX-License-Identifier: Apache-2.0
"""The consequences of an order, before it is given."""

from __future__ import annotations

from airflow_dispatch_provider.operate.forecast import forecast_of

from .documents import backend, document, reading


def line(held, *targets):
    return {"targets": list(targets), "held": held}


def test_what_waits_goes_to_the_next_backend_that_is_open():
    """Over all schedulers of the team; what has no other one stays."""
    backends = [
        backend("a", used=3, ahead=1, not_begun=2),
        backend("b", state="failing"),
        backend("c"),
    ]
    one = document(
        "1", backends=backends, lines=[line(5, "a", "b", "c"), line(7, "a", "b"), line(9, "c", "a")]
    )
    two = document("2", backends=backends, lines=[line(4, "a", "c"), line(1, "a")])
    red = document("3", team="red", backends=[backend("a")], lines=[line(100, "a")])
    found = forecast_of(reading(one, two, red), "a", None)
    assert (found.has, found.not_begun) == (8, 4)
    assert (found.held, found.elsewhere, found.stay) == (17, {"c": 9}, 8)
    assert forecast_of(reading(one, two, red), "a", "red").stay == 100
