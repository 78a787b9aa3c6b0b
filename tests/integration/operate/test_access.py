# SPDX-License-Identifier: Apache-2.0
"""Who may see and do what, with Airflow's API server and its simple auth manager."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS

from .conftest import Server, serving

pytestmark = pytest.mark.integration("sqlite")

READ = (
    "/dispatch/api/status",
    "/dispatch/api/waiting",
    "/dispatch/api/story?dag_id=it_dag&run_id=r&task_id=t",
    "/dispatch/api/explain?queue=burst-a",
    "/dispatch/api/backlog?backend=gpu",
)
FILES = ("/dispatch/openapi.json",)
WHAT_IF = ("/dispatch/api/what-if", {"file": "default: gpu"})


def order(**fields: Any) -> dict[str, Any]:
    return {"command": "cordon", "backend": "local", "reason": "a test", **fields}


@pytest.mark.parametrize("path", [*READ, *FILES, "/dispatch/page/dispatch.js"])
def test_whoever_has_not_logged_in_sees_nothing(server: Server, path: str) -> None:
    """Not even that there is a page."""
    assert server.send(path, None).code == 401
    assert server.send(path, "made-up").code in (401, 403)


@pytest.mark.parametrize("path", ["/dispatch/docs", "/dispatch/redoc", "/dispatch/"])
def test_there_are_no_other_pages(server: Server, path: str) -> None:
    """FastAPI has some that it shows to everybody."""
    assert server.send(path, None).code == 404


def test_whoever_has_not_logged_in_gives_no_order(server: Server) -> None:
    """Nor may somebody compare a file."""
    assert server.send("/dispatch/api/orders", None, order()).code == 401
    assert server.send(WHAT_IF[0], None, WHAT_IF[1]).code == 401


def test_a_user_without_a_role_sees_nothing(server: Server) -> None:
    """Being known is no right."""
    token = server.token("nobody")
    assert {server.send(path, token).code for path in READ} == {403}
    assert server.send(WHAT_IF[0], token, WHAT_IF[1]).code == 403
    assert server.send("/dispatch/api/orders", token, order()).code == 403


@pytest.mark.parametrize("user", ["reader", "author"])
def test_a_reader_sees_and_cannot_act(server: Server, user: str) -> None:
    """By any command, for any team."""
    token = server.token(user)
    assert {server.send(path, token).code for path in (*READ, *FILES)} == {200}
    assert server.send("/dispatch/api/status", token).json["may_act"] is False
    for command in ("cordon", "drain", "resume"):
        for team in (None, "red"):
            answer = server.send("/dispatch/api/orders", token, order(command=command, team=team))
            assert answer.code == 403
    states = {
        each["name"]: each["state"] for each in server.send("/dispatch/api/status", token).json["backends"]
    }
    assert states["local"] == "open"


@pytest.mark.parametrize("user", ["operator", "boss"])
def test_whoever_may_change_pools_may_give_orders(server: Server, user: str) -> None:
    """In their own name, until they take it back."""
    token = server.token(user)
    assert server.send("/dispatch/api/status", token).json["may_act"] is True
    given = server.send("/dispatch/api/orders", token, order(seconds=3600))
    assert (given.code, given.json["by"]) == (200, user)
    assert server.send("/dispatch/api/orders", token, order(command="resume")).json["by"] == user
    assert server.send("/dispatch/api/orders", token, order(command="resume")).json is None


def test_dags_that_are_not_there_to_the_user_are_not_named(server: Server) -> None:
    """Here one that Airflow does not know."""
    token = server.token("reader")
    waiting = server.send("/dispatch/api/waiting?limit=1000", token)
    assert "it_dag" in waiting.text
    for answer in (waiting, server.send("/dispatch/api/status", token)):
        assert "not_readable" not in answer.text
        assert "secret_task" not in answer.text
    story = "/dispatch/api/story?dag_id=not_readable&run_id=r&task_id=secret_task"
    assert server.send(story, token).code == 403


def test_airflow_lists_the_plugin(server: Server) -> None:
    """As its page of plugins shows it, once and without an error."""
    token = server.token("boss")
    listed = server.send("/api/v2/plugins", token).json["plugins"]
    (ours,) = [each for each in listed if each["name"] == "dispatch"]
    assert [each["url_prefix"] for each in ours["fastapi_apps"]] == ["/dispatch"]
    assert server.send("/api/v2/plugins/importErrors", token).json["import_errors"] == []


TEAMS = {"scarlet": "viewer:red", "ruby": "op:red", "navy": "op:blue", "boss": "admin", "white": "op"}


@pytest.fixture(scope="module")
def teams(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two teams with a backend each, beside those of everybody."""
    if not AIRFLOW_V_3_2_PLUS:
        pytest.skip("Airflow 3.1 has no teams")
    env = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url, "AIRFLOW__CORE__MULTI_TEAM": "True"}
    for team in ("red", "blue"):
        command = [sys.executable, "-m", "airflow", "teams", "create", team]
        subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True)
    with serving(tmp_path_factory.mktemp("teams"), env, users=TEAMS) as found:
        yield found


@pytest.mark.parametrize(
    ("user", "sees", "acts_for"),
    [
        pytest.param("scarlet", {None, "red"}, [], id="a reader of one team"),
        pytest.param("ruby", {None, "red"}, [None, "red"], id="an operator of one team"),
        pytest.param("navy", {None, "blue"}, [None, "blue"], id="an operator of the other"),
        pytest.param("white", {None}, [None], id="an operator of no team"),
        pytest.param("boss", {None, "red", "blue"}, [None, "red", "blue"], id="an admin"),
    ],
)
def test_a_team_sees_its_own(
    teams: Server, user: str, sees: set[str | None], acts_for: list[str | None]
) -> None:
    """And what is everybody's, as with Airflow's pools."""
    found = teams.send("/dispatch/api/status", teams.token(user)).json
    assert {each["team"] for each in found["backends"]} == sees
    assert found["acts_for"] == acts_for


def test_another_team_is_out_of_reach(teams: Server) -> None:
    """For orders, explanations, comparisons and numbers."""
    token = teams.token("ruby")
    theirs = order(backend="of_blue", team="blue")
    assert teams.send("/dispatch/api/orders", token, theirs).code == 403
    assert teams.send("/dispatch/api/explain?queue=gpu&team=blue", token).code == 403
    assert teams.send(WHAT_IF[0], token, {**WHAT_IF[1], "team": "blue"}).code == 403
    assert teams.send("/dispatch/api/backlog?backend=of_blue&team=blue", token).code == 404
    assert teams.send("/dispatch/api/status?team=blue", token).json["backends"] == []
    mine = order(backend="of_red", team="red")
    assert teams.send("/dispatch/api/orders", token, mine).json["team"] == "red"
