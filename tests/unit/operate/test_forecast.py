# SPDX-License-Identifier: Apache-2.0
"""The consequences of an order, before it is given."""

from __future__ import annotations

from airflow_dispatch_provider.operate.forecast import forecast_of

from .documents import NOW, backend, document, reading


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


def test_each_scheduler_sends_its_tasks_where_it_can():
    """A backend that fails for one of them is open for the tasks of the others."""
    lines = [{"targets": ["a", "b"], "held": 2}]
    one = document("1", backends=[backend("a"), backend("b")], lines=lines)
    two = document("2", backends=[backend("a"), backend("b", state="failing")], lines=lines)
    found = forecast_of(reading(one, two), "a", None)
    assert (found.elsewhere, found.stay) == ({"b": 2}, 2)


def test_where_no_scheduler_of_the_team_lives_nothing_is_known():
    """Those of others say nothing of its backends."""
    dead = document("2", team="red", written=NOW - 600, backends=[backend("a", used=9)])
    found = forecast_of(reading(document("1", backends=[backend("a")]), dead), "a", "red")
    assert "the last to do so was scheduler 2" in (found.problem or "")
    assert forecast_of(reading(document("1"), dead), "a", None).problem is None
