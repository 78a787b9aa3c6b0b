# SPDX-License-Identifier: Apache-2.0
"""The simulation's cluster is tied to a real API server: the same scripts run on both, and both say the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from integration.sides import said

from airflow_dispatch_provider.lifecycle.events import Adopted, Ended, Rejected, Returned, Sent, Unknown
from airflow_dispatch_provider.lifecycle.states import Outcome

from .cluster_sides import ENDS_WELL, NO_IMAGE, RUNS, WAITS, KubeSide, ModelSide, Side

pytestmark = [pytest.mark.integration("kubernetes"), pytest.mark.recent]

SENT = ("Sent", None, None)
FAILED, SUCCESS = Outcome.FAILED, Outcome.SUCCESS


@pytest.fixture(params=["model", "kube"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    if request.param == "model":
        yield ModelSide()
        return
    with ExitStack() as stack:
        yield KubeSide(request.getfixturevalue("shared_kube"), tmp_path, stack)


@pytest.mark.parametrize(("fate", "began", "how"), [(ENDS_WELL, None, SUCCESS), (NO_IMAGE, False, FAILED)])
def test_what_is_said_of_a_pod_that_ends(side, fate, began, how):
    """Whether it had begun, only the database knows, but where its container did not start."""
    side.meet(fate)
    (number,) = side.submit()
    assert [said(event) for event in side.hears(number, Ended)] == [SENT, ("Ended", how, began)]


def test_what_is_revoked_while_it_waits_never_began_and_is_gone(side):
    side.meet(WAITS)
    (number,) = side.submit()
    side.hears(number, Sent)
    side.revoke(number)
    assert said(side.hears(number, Ended)[-1])[:2] == ("Ended", FAILED)
    assert side.pods() == 0


def test_what_is_over_in_airflow_and_waits_is_gone(side):
    side.meet(WAITS)
    (number,) = side.submit()
    side.hears(number, Sent)
    side.revoke(number, over=True)
    side.hears(number, Ended)
    assert side.pods() == 0


def test_what_somebody_deletes_while_it_waits_had_not_begun(side):
    side.meet(WAITS)
    (number,) = side.submit()
    side.hears(number, Sent)
    side.delete_by_hand(number)
    assert [said(event) for event in side.hears(number, Ended)] == [SENT, ("Ended", FAILED, False)]


def test_of_what_somebody_deletes_while_it_runs_the_database_is_asked(side):
    side.meet(RUNS)
    (number,) = side.submit()
    side.wait_until_it_runs(number)
    side.delete_by_hand(number)
    assert [said(event) for event in side.hears(number, Ended)] == [SENT, ("Ended", FAILED, None)]


def test_another_scheduler_adopts_a_pod_and_this_one_lets_go(side):
    """The database knows whose the task is."""
    side.meet(RUNS)
    (number,) = side.submit()
    side.wait_until_it_runs(number)
    adopted = side.adopt(number)
    assert isinstance(side.hears(adopted, Adopted, heir=True)[0], Adopted)
    end = side.hears(number, Ended)[-1]
    assert said(end) == ("Ended", FAILED, None)
    assert "another scheduler" in end.reason


def test_a_task_without_a_pod_is_unknown(side):
    assert [said(event)[0] for event in side.hears(side.adopt(None), Unknown, heir=True)] == ["Unknown"]


def test_a_used_up_quota_closes_its_namespace(side):
    """The rest is returned with the namespace."""
    side.meet(WAITS)
    room = side.fill()
    numbers = side.submit(room)
    for number in numbers:
        side.hears(number, Sent)
    (number,) = side.submit()
    returned = side.hears(number, Returned)[-1]
    assert returned.lane == side.namespace
    assert list(side.room().closed) == [side.namespace]
    assert side.room().unavailable is None


def test_what_is_refused_to_all_pods_closes_the_namespace_until_it_is_mended(side):
    side.refuse()
    numbers = side.submit(2)
    for number in numbers:
        assert side.hears(number, Returned)[-1].lane == side.namespace
    assert list(side.room().closed) == [side.namespace]
    side.mend()
    side.meet(ENDS_WELL)
    (number,) = side.submit()
    assert [said(event) for event in side.hears(number, Ended)] == [SENT, ("Ended", SUCCESS, None)]


def test_what_no_server_takes_is_rejected_and_keeps_no_other(side):
    side.meet(ENDS_WELL)
    number = side.submit_spoilt()
    (other,) = side.submit()
    assert [said(event)[0] for event in side.hears(number, Rejected)] == ["Rejected"]
    side.hears(other, Ended)
    assert side.room().closed == {}
