# SPDX-License-Identifier: Apache-2.0
"""The API over the database of an Airflow without a scheduler."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS

from .conftest import Server, serving

pytestmark = pytest.mark.integration("sqlite")

BACKENDS = {"local": {"executor": "LocalExecutor", "slots": 4}}


@pytest.fixture(scope="module")
def live(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        "AIRFLOW__DISPATCH__BACKENDS": json.dumps(BACKENDS),
        "AIRFLOW__DISPATCH__DEFAULT": "local",
    }
    with serving(tmp_path_factory.mktemp("live"), env, held=0) as found:
        yield found


def test_questions_are_answered_while_no_scheduler_lives(live: Server) -> None:
    """And say why there is so little in the answers."""
    token = live.token("reader")
    for path in ("status", "waiting"):
        found = live.send(f"/dispatch/api/{path}", token)
        assert (found.code, bool(found.json["problem"])) == (200, True)
    explained = live.send("/dispatch/api/explain?queue=any", token).json
    assert (explained["configured"]["backend"], explained["now"]) == ("local", None)


def test_the_story_of_a_task_is_told(live: Server) -> None:
    """One that has not been queued has none yet."""
    token = live.token("reader")
    run = (
        live.send("/api/v2/dags/it_dag/dagRuns", token).json["dag_runs"][0]["dag_run_id"].replace("+", "%2B")
    )
    story = live.send(f"/dispatch/api/story?dag_id=it_dag&run_id={run}&task_id=t3", token)
    assert (story.code, story.json["task_id"]) == (200, "t3")
    assert live.send(f"/dispatch/api/story?dag_id=it_dag&run_id={run}&task_id=gone", token).code == 404


def test_an_order_says_what_is_missing(live: Server) -> None:
    """The backend, or on Airflow 3.1 the tables, which need an option there."""
    order = {"command": "cordon", "backend": "local", "reason": "a test"}
    found = live.send("/dispatch/api/orders", live.token("operator"), order)
    assert found.code == (404 if AIRFLOW_V_3_2_PLUS else 503)
    assert found.json["detail"]


def test_a_file_is_compared_with_the_configuration(live: Server) -> None:
    """Of the API server."""
    file = {"file": "backends: {local: {executor: LocalExecutor, slots: 9}}\ndefault: local\n"}
    found = live.send("/dispatch/api/what-if", live.token("reader"), file).json
    assert [change["details"] for change in found["changes"]] == ["slots 4 -> 9"]
