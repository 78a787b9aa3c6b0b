# SPDX-License-Identifier: Apache-2.0
"""How pods that are through are deleted or marked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from airflow_dispatch_provider.engines.kubernetes.finisher import Finisher, delete_options
from airflow_dispatch_provider.engines.kubernetes.pod_api import Reply

from .fakes import FakeApi, named, status, until

pytestmark = pytest.mark.usefixtures("little_waiting")


def running(
    test: Callable[[Finisher, FakeApi], Awaitable[None]],
    delete: bool = True,
    delete_failed: bool = False,
    limit: int = 4,
) -> FakeApi:
    """Run the finisher beside a test, in one event loop."""

    async def both() -> FakeApi:
        api = FakeApi()
        finisher = Finisher(api, limit, delete=delete, delete_failed=delete_failed, delete_options={})
        task = asyncio.create_task(finisher.run())
        await asyncio.wait_for(test(finisher, api), 30)
        await asyncio.wait_for(until(lambda: not (finisher.unfinished or finisher._todo)), 30)
        task.cancel()
        return api

    return asyncio.run(both())


@pytest.mark.parametrize(
    ("delete", "delete_failed", "failed", "call"),
    [
        (True, False, False, "delete"),
        # Kept, to be looked at.
        (True, False, True, "label airflow_executor_done"),
        (True, True, True, "delete"),
        (False, True, False, "label airflow_executor_done"),
        (False, True, True, "label airflow_executor_done"),
    ],
)
def test_the_options_say_which_pods_stay(delete, delete_failed, failed, call):
    async def test(finisher: Finisher, api: FakeApi) -> None:
        finisher.finish(named("p"), failed)

    assert running(test, delete, delete_failed).calls == [(call, "p")]


def test_pods_are_finished_concurrently_within_the_bound():
    async def test(finisher: Finisher, api: FakeApi) -> None:
        for index in range(20):
            finisher.finish(named(f"p{index}"), False)

    api = running(test, limit=5)
    assert sorted(api.names("delete")) == sorted(f"p{index}" for index in range(20))
    assert api.most_at_once == 5


@pytest.mark.parametrize(
    "answer",
    [status(500), status(429), status(403, 'User "a" cannot delete resource "pods"'), OSError("cut")],
)
def test_what_went_wrong_is_tried_again(answer):
    async def test(finisher: Finisher, api: FakeApi) -> None:
        api.answers.append(answer)
        finisher.finish(named("p"), False)

    assert running(test).names("delete") == ["p", "p"]


@pytest.mark.parametrize("code", [404, 422])
def test_what_cannot_be_finished_or_is_gone_is_let_go(code):
    """It must not stand in the way of the others."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        api.answers.append(status(code, 'pods "p" not found', "NotFound", kind="pods"))
        finisher.finish(named("p"), False)
        finisher.finish(named("q"), False)

    assert running(test).names("delete") == ["p", "q"]


def test_an_unwanted_pod_is_marked_before_it_is_deleted():
    """Whoever watches it then takes its end for no news."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        finisher.remove(named("p"), even_started=True)

    assert running(test).calls == [("label airflow_pod_revoked", "p"), ("delete", "p")]


RUNS = {"status": {"phase": "Running", "containerStatuses": [{"name": "base", "state": {"running": {}}}]}}
WAITS = {"status": {"phase": "Pending"}}


@pytest.mark.parametrize(
    ("pod", "calls"),
    [(RUNS, ["get"]), (WAITS, ["get", "delete"])],
)
def test_an_unwanted_pod_that_has_started_since_is_left_alone(pod, calls):
    """Its task may have been queued again before it could be deleted, and run in it. The mark would hide its end."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        api.answers += [status(500), Reply(200, json.dumps(pod))]
        finisher.remove(named("p"), even_started=False)

    assert running(test).calls == [(call, "p") for call in ["get", *calls]]


def test_an_unwanted_pod_that_has_ended_since_is_cleaned_up():
    """However it was to be treated before."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        finisher.remove(named("p"), even_started=False)
        finisher.finish(named("p"), failed=False)

    assert running(test).names("get") == []


def test_what_is_unwanted_even_where_it_has_started_is_not_asked_about():
    """In whatever order that was said."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        finisher.remove(named("p"), even_started=False)
        finisher.remove(named("p"), even_started=True)
        finisher.finish(named("q"), failed=False)
        finisher.remove(named("q"), even_started=False)

    assert running(test).names("get") == []


def test_delete_options_are_put_in_the_words_of_the_api():
    """Airflow's option has them in those of the Python client."""
    assert delete_options({"grace_period_seconds": 3}) == {"gracePeriodSeconds": 3}


@pytest.mark.parametrize("verb", ["delete", "label airflow_executor_done"])
@pytest.mark.parametrize("limit", [1, 4])
def test_a_pod_that_cannot_be_finished_keeps_no_other(verb, limit):
    """A webhook may fail for it alone."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        api.rules.append(
            lambda verb, _, pod: status(500, "webhook") if pod["metadata"]["name"] == "bad" else None
        )
        finisher.finish(named("bad"), verb != "delete")
        await until(lambda: api.calls)
        for index in range(8):
            finisher.finish(named(f"p{index}"), False)
        await until(lambda: len(api.names("delete")) >= 8 + (verb == "delete"))
        assert finisher.trouble.reason is None
        await until(lambda: len(api.names(verb)) - api.names(verb).count("bad") in (0, 8))
        await until(lambda: finisher.unfinished == 0)
        api.rules.clear()

    running(test, limit=limit)


def test_only_what_different_pods_meet_is_trouble_of_the_server():
    """Then one request at a time asks whether it is over."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        api.rules.append(lambda *_: status(500, "down"))
        for index in range(8):
            finisher.finish(named(f"p{index}"), False)
        await until(lambda: finisher.trouble.reason)
        api.rules.clear()

    assert set(running(test).names("delete")) == {f"p{index}" for index in range(8)}


def test_a_pod_that_cannot_be_marked_is_deleted_all_the_same():
    """The mark is for those who watch; the pod would stay for ever."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        api.rules.append(lambda verb, *_: status(500, "webhook") if verb.startswith("label") else None)
        finisher.remove(named("p"), even_started=True)
        await until(lambda: api.names("delete"))

    assert len(running(test).names("label airflow_pod_revoked")) == 3


def test_a_pod_whose_other_containers_live_on_is_never_kept():
    """Whatever the options say of pods that are through: it is not."""

    async def test(finisher: Finisher, api: FakeApi) -> None:
        finisher.finish(named("p"), failed=True, lives_on=True)

    assert running(test, delete=False).calls == [("delete", "p")]
