# SPDX-License-Identifier: Apache-2.0
"""The routes, for users with made-up rights. What Airflow's auth managers say is in ``tests/integration/operate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from operate_answers import ROUTING, FakeAnswers, backend, now

from airflow_dispatch_provider.bridge.database.tables import TablesMissing
from airflow_dispatch_provider.operate import access
from airflow_dispatch_provider.operate.api import create_app, router
from airflow_dispatch_provider.operate.model import Status
from airflow_dispatch_provider.operate.warming import Warming


class Rights:
    """In place of ``Access``."""

    name = "ann"

    def __init__(
        self,
        teams: tuple[str | None, ...] = (None,),
        acts: tuple[str | None, ...] = (),
        log: bool = False,
    ) -> None:
        self.teams, self.acts, self.log = teams, acts, log

    def sees_team(self, team: str | None) -> bool:
        return team in self.teams

    def acts_for(self, team: str | None) -> bool:
        return team in self.acts

    def readable(self, dag_ids: set[str]) -> set[str]:
        return dag_ids & {"billing", "reports"}

    def reads_audit_log(self, dag_id: str) -> bool:
        return self.log


Make = Callable[..., TestClient]


@pytest.fixture
def answers() -> FakeAnswers:
    return FakeAnswers()


@pytest.fixture
def as_user(answers: FakeAnswers) -> Make:
    """A client of a user with these rights."""

    def make(**rights: Any) -> TestClient:
        app = create_app(answers)
        found = Rights(**rights)
        app.dependency_overrides[access._reader] = lambda: found
        app.dependency_overrides[access.logged_in] = lambda: found
        return TestClient(app)

    return make


def routes(app: FastAPI) -> list[Any]:
    return list(app.routes)


def test_no_route_can_be_reached_without_a_user() -> None:
    """Airflow checks nothing for the apps of plugins. FastAPI's own pages are routes, too."""
    found = [route for route in router.routes if isinstance(route, APIRoute)]
    assert len(found) == len(router.routes) == 12
    for route in found:
        assert get_user in _calls(route.dependant), route.path
    paths = {
        path for route in routes(create_app(FakeAnswers())) for path in [getattr(route, "path", None)] if path
    }
    assert paths <= {route.path for route in found}


def _calls(dependant: Any) -> set[Any]:
    return {dependant.call}.union(*(_calls(each) for each in dependant.dependencies))


def test_every_route_but_the_files_needs_the_right_to_read() -> None:
    """Whoever is only logged in gets the page and the description of the API."""
    read = {
        route.path
        for route in router.routes
        if isinstance(route, APIRoute) and access._reader in _calls(route.dependant)
    }
    assert {route.path for route in router.routes if isinstance(route, APIRoute)} - read == {
        "/openapi.json",
        "/page/dispatch.js",
    }


def test_status_tells_who_may_act(as_user: Make) -> None:
    """The page shows buttons by it."""
    assert as_user().get("/api/status").json()["may_act"] is False
    found = as_user(acts=(None,)).get("/api/status").json()
    assert (found["may_act"], found["acts_for"]) == (True, [None])
    assert [each["name"] for each in found["backends"]] == ["celery", "gpu", "local"]


def test_dags_that_may_not_be_read_are_in_no_answer(as_user: Make) -> None:
    """By any parameter."""
    client = as_user(acts=(None,))
    asked = ("waiting", "running")
    filters = ("", "?dag_id=not_readable", "?limit=1000")
    for path in ("status", *(f"{question}{each}" for question in asked for each in filters)):
        answer = client.get(f"/api/{path}")
        assert answer.status_code == 200
        assert "not_readable" not in answer.text
        assert "secret_task" not in answer.text


def test_a_story_needs_its_dag(as_user: Make, answers: FakeAnswers) -> None:
    """Where the Dag may not be read, nobody looks whether there is such a task."""
    client = as_user()
    question = {"dag_id": "billing", "run_id": "r", "task_id": "t", "map_index": 3}
    found = client.get("/api/story", params=question)
    assert found.json()["waiting"]["position"] == 7
    gone = client.get("/api/story", params={**question, "task_id": "gone"})
    assert (gone.status_code, "has no task 'gone'" in gone.json()["detail"]) == (404, True)
    answers.asked.clear()
    assert client.get("/api/story", params={**question, "dag_id": "not_readable"}).status_code == 403
    assert answers.asked == []


def test_a_story_has_rows_of_the_audit_log_for_those_who_may_read_that(as_user: Make) -> None:
    """Who has cleared a task, say."""
    question = {"dag_id": "billing", "run_id": "r", "task_id": "t"}
    told = [as_user(log=log).get("/api/story", params=question).text for log in (False, True)]
    assert ["clear by ann" in each for each in told] == [False, True]


def test_two_dags_in_one_question_are_the_one_that_is_answered(as_user: Make) -> None:
    """The right is asked about the Dag whose story is told."""
    found = as_user().get("/api/story?dag_id=not_readable&dag_id=billing&run_id=r&task_id=t")
    assert found.json()["dag_id"] == "billing"
    assert (
        as_user().get("/api/story?dag_id=billing&dag_id=not_readable&run_id=r&task_id=t").status_code == 403
    )


def test_who_uses_the_slots(as_user: Make, answers: FakeAnswers) -> None:
    """Of one backend; a total of all teams that may be seen, and the tasks of Dags that may be read. All of it is read
    once."""
    found = as_user().get("/api/running", params={"backend": "gpu"}).json()
    assert (found["total"], len(found["tasks"])) == (10_016, 2)
    assert [task["has_begun"] for task in found["tasks"]] == [True, False]
    assert answers.asked == ["running"]


@pytest.mark.parametrize("question", ["waiting", "running", "backlog"])
def test_a_backend_that_nobody_has_is_not_found(as_user: Make, answers: FakeAnswers, question: str) -> None:
    """As in the command, with those that there are and may be seen; one of another team is none. One that has nothing
    is found."""
    answers.teams = [backend("theirs", team="b", held=5)]
    for name in ("frm", "theirs"):
        found = as_user().get(f"/api/{question}", params={"backend": name})
        assert found.status_code == 404
        assert found.json()["detail"] == f"There is no backend {name!r}. Known: celery, gpu, local."
    assert as_user().get(f"/api/{question}", params={"backend": "celery"}).status_code == 200


def test_a_reason_for_which_nothing_waits_is_refused(as_user: Make) -> None:
    """With those that there are; one that a group may have is none of these, be it no word of the routing."""
    found = as_user().get("/api/waiting?reason=nope")
    assert (found.status_code, "Known: waits_full" in found.json()["detail"]) == (422, True)
    for reason in ("waits_api", "unsupported", "next"):
        assert as_user().get(f"/api/waiting?reason={reason}").status_code == 200


def test_a_forecast_is_for_readers(as_user: Make) -> None:
    """Of a backend that there is, of a team that may be seen."""
    client = as_user()
    found = client.get("/api/forecast", params={"backend": "gpu"}).json()
    assert (found["held"], found["elsewhere"], found["stay"]) == (42, {"local": 40}, 2)
    assert client.get("/api/forecast", params={"backend": "none"}).status_code == 404
    assert client.get("/api/forecast", params={"backend": "gpu", "team": "red"}).status_code == 403


def test_changes_of_other_teams_are_not_told(as_user: Make) -> None:
    """Nor that there were any."""
    found = as_user().get("/api/changes").json()
    assert [change["event"] for change in found] == ["dispatch_drain", "config_file_changed"]
    assert as_user().get("/api/changes", params={"seconds": 0}).status_code == 422


def test_whoever_looks_at_the_backends_soon_asks_more(as_user: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """So their executors are imported from then on, and for no other question."""
    begun: list[bool] = []
    monkeypatch.setattr(Warming, "begin", lambda self: begun.append(True))
    client = as_user()
    client.get("/api/backlog?backend=gpu")
    assert begun == []
    client.get("/api/status")
    assert begun == [True]


@pytest.mark.parametrize("command", ["cordon", "drain", "resume", "recall"])
def test_a_reader_gives_no_order(as_user: Make, answers: FakeAnswers, command: str) -> None:
    """Nor does somebody who acts for another team."""
    order = {"command": command, "backend": "gpu", "reason": "new drivers"}
    assert as_user().post("/api/orders", json=order).status_code == 403
    assert as_user(teams=(None, "a"), acts=("a",)).post("/api/orders", json=order).status_code == 403
    assert answers.orders == []


def test_an_order_has_who_why_and_until(as_user: Make, answers: FakeAnswers) -> None:
    """Who is whoever is logged in: nobody can say otherwise."""
    client = as_user(acts=(None,))
    order = {"command": "drain", "backend": "gpu", "reason": " new drivers ", "seconds": 7200}
    found = client.post("/api/orders", json=order)
    assert answers.orders == [("drain", "gpu", None, "ann", "new drivers", 7200.0)]
    assert found.json()["by"] == "ann"
    assert client.post("/api/orders", json={**order, "by": "bob"}).status_code == 422
    resume = {"command": "resume", "backend": "gpu"}
    assert [client.post("/api/orders", json=resume).json() for _ in range(2)] == [found.json(), None]


def test_the_answer_to_an_order_names_the_one_that_it_replaces(as_user: Make) -> None:
    """And what may not be expected of it; the forecast has the order that would be replaced."""
    client = as_user(acts=(None,))
    order = {"command": "cordon", "backend": "gpu", "reason": "disks"}
    recalled = client.post("/api/orders", json={**order, "command": "recall"}).json()
    assert "cordon or drain it first" in recalled["warning"]
    assert client.post("/api/orders", json=order).json()["replaces"] is None
    forecast = client.get("/api/forecast", params={"backend": "gpu"}).json()
    assert (forecast["order"]["command"], forecast["is_cordoned"]) == ("cordon", True)
    drained = client.post("/api/orders", json={**order, "command": "drain"}).json()
    assert (drained["command"], drained["replaces"]["command"]) == ("drain", "cordon")
    recalled = client.post("/api/orders", json={**order, "command": "recall"}).json()
    assert (recalled["warning"], recalled["replaces"]) == (None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": "delete"},
        {"reason": "x" * 1001},
        {"reason": "a\0b"},
        {"backend": ""},
        {"seconds": 0},
        {"seconds": 1e9},
        {"seconds": "soon"},
    ],
)
def test_a_wrong_order_is_refused(as_user: Make, answers: FakeAnswers, wrong: dict[str, Any]) -> None:
    """Before anything happens."""
    order = {"command": "cordon", "backend": "gpu", "reason": "new drivers", **wrong}
    assert as_user(acts=(None,)).post("/api/orders", json=order).status_code == 422
    assert answers.orders == []


@pytest.mark.parametrize("seconds", ["NaN", "1e999", '"\\ud800"', '1, "\\ud800": 1'])
def test_what_json_or_utf_8_cannot_repeat_is_refused(as_user: Make, seconds: str) -> None:
    """The answer says where, and not what was there."""
    body = f'{{"command": "cordon", "backend": "gpu", "seconds": {seconds}}}'
    headers = {"Content-Type": "application/json"}
    found = as_user(acts=(None,)).post("/api/orders", content=body, headers=headers)
    assert found.status_code == 422
    assert found.json()["detail"][0]["loc"][0] == "body"
    assert {key for each in found.json()["detail"] for key in each} == {"type", "loc", "msg"}


@pytest.mark.parametrize(
    "wrong", ["run_id=a%00b", "run_id=r&map_index=2147483648", "run_id=r&try_number=99999999999999999999"]
)
def test_a_name_or_a_number_that_no_database_has_is_refused(as_user: Make, wrong: str) -> None:
    """Before it is asked."""
    assert as_user().get(f"/api/story?dag_id=billing&task_id=t&{wrong}").status_code == 422


def test_an_order_needs_no_reason(as_user: Make, answers: FakeAnswers) -> None:
    """As with the command; the page asks for one."""
    order = {"command": "cordon", "backend": "gpu", "reason": "  "}
    assert as_user(acts=(None,)).post("/api/orders", json=order).json()["reason"] == ""


def test_an_order_about_a_backend_that_nobody_has_is_not_found(as_user: Make) -> None:
    """The answer says which there are."""
    order = {"command": "resume", "backend": "gone"}
    found = as_user(acts=(None,)).post("/api/orders", json=order)
    assert found.status_code == 404
    assert "Known: celery, gpu, local" in found.json()["detail"]


def test_without_tables_the_answer_says_what_to_run(as_user: Make, answers: FakeAnswers) -> None:
    """An order can be kept nowhere."""

    def missing(*args: Any) -> None:
        raise TablesMissing

    answers.order = missing
    found = as_user(acts=(None,)).post("/api/orders", json={"command": "resume", "backend": "gpu"})
    assert found.status_code == 503
    assert "run airflow db migrate" in found.json()["detail"]


def test_the_backlog_is_what_a_backend_has_and_what_waits_for_it(as_user: Make) -> None:
    """Held tasks included: with the slots in use alone, no worker would be added for them."""
    assert as_user().get("/api/backlog?backend=gpu").json() == {"backlog": 10_058}
    assert as_user().get("/api/backlog?backend=local").json() == {"backlog": 3}


def test_a_backlog_that_nobody_knows_is_not_that_of_no_backend(
    as_user: Make, answers: FakeAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An autoscaler is told so, and what to run."""
    monkeypatch.setattr(answers, "status", lambda: Status(now(), [], [], str(TablesMissing())))
    found = as_user().get("/api/backlog?backend=gpu")
    assert (found.status_code, "airflow db migrate" in found.json()["detail"]) == (503, True)


def test_the_backlog_of_another_team_is_not_found(as_user: Make, answers: FakeAnswers) -> None:
    """As one that nobody has."""
    answers.teams = [backend("theirs", team="b", held=5)]
    assert as_user(teams=(None, "b")).get("/api/backlog?backend=theirs&team=b").json() == {"backlog": 8}
    for path in ("backend=theirs&team=b", "backend=theirs", "backend=gone"):
        assert as_user().get(f"/api/backlog?{path}").status_code == 404


def test_explain_answers_for_the_configuration_and_for_now(as_user: Make, answers: FakeAnswers) -> None:
    """The only target of this route is full."""
    answers.routing = {
        **ROUTING,
        "backends": {name: {"executor": "LocalExecutor", "slots": 4} for name in ROUTING["backends"]},
    }
    found = as_user().get("/api/explain?queue=gpu").json()
    assert (found["configured"]["backend"], found["now"]["reason"]) == ("gpu", "waits_full")


def test_a_wrong_configuration_is_told(as_user: Make, answers: FakeAnswers) -> None:
    """By explain, with its mistakes."""
    answers.routing = {"backends": {}}
    found = as_user().get("/api/explain?queue=gpu")
    assert found.status_code == 409
    assert "backends" in found.json()["detail"]


def test_the_configuration_of_another_team_is_forbidden(as_user: Make) -> None:
    """To explain, and to compare with."""
    client = as_user(acts=(None,))
    assert client.get("/api/explain?queue=gpu&team=b").status_code == 403
    assert client.post("/api/what-if", json={"file": "", "team": "b"}).status_code == 403


def test_a_pasted_file_is_compared_for_readers_too(as_user: Make, answers: FakeAnswers) -> None:
    """It changes nothing, and names no task of a Dag that may not be read."""
    file = "backends: {gpu: {executor: LocalExecutor, slots: 1}}\ndefault: gpu\n"
    found = as_user().post("/api/what-if", json={"file": file})
    assert found.json()["changes"]
    assert "secret_task" not in found.text
    assert answers.orders == []
    assert as_user().post("/api/what-if", json={"file": "x" * 1_000_001}).status_code == 422


def test_openapi_describes_every_question(as_user: Make) -> None:
    """With a summary, and the shape of its answer."""
    found = as_user().get("/openapi.json").json()
    assert sorted(found["paths"]) == [
        "/api/backlog",
        "/api/changes",
        "/api/explain",
        "/api/forecast",
        "/api/orders",
        "/api/running",
        "/api/status",
        "/api/story",
        "/api/waiting",
        "/api/what-if",
    ]
    for methods in found["paths"].values():
        for described in methods.values():
            assert described["summary"]
            assert described["responses"]["200"]["content"]["application/json"]["schema"]
