# SPDX-License-Identifier: Apache-2.0
"""Run Airflow's own API server with our plugin, whose answers are made up: ``python server.py PORT HELD``. With 0 held,
they are those of the database; with ``pictures`` in place of a number, those of the documentation's pictures.

With ``[core] multi_team`` there is a backend of the team ``red`` and one of ``blue``. ``/asked`` tells how often each
question was asked.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import uvicorn
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from fastapi.responses import JSONResponse
from operate_answers import FakeAnswers, backend
from picture_answers import DAGS, PictureAnswers

from airflow_dispatch_provider.bridge.backend_conf import several_teams
from airflow_dispatch_provider.operate import answers


def main() -> None:
    port, held = int(sys.argv[1]), sys.argv[2]
    fake = answers_of(held)
    module: Any = answers
    if held != "0":
        module.LiveAnswers = lambda: fake

    from airflow.api_fastapi.app import create_app

    app: Any = create_app(apps="core")

    async def with_counts(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/asked":
            await JSONResponse(Counter(fake.asked))(scope, receive, send)
        else:
            await app(scope, receive, send)

    uvicorn.run(with_counts, host="127.0.0.1", port=port, log_level="warning")


def answers_of(held: str) -> FakeAnswers:
    if held == "pictures":
        add_dags()
        return PictureAnswers()
    fake = FakeAnswers(int(held), shown=min(int(held), 1000), dags=("it_dag", "it_retried"))
    if several_teams():
        fake.teams = [backend(f"of_{team}", team=team) for team in ("red", "blue")]
    return fake


def add_dags() -> None:
    """So that users have the right to read them."""
    with create_session() as session:
        session.add_all(DagModel(dag_id=dag_id, bundle_name="dags-folder") for dag_id in DAGS)


if __name__ == "__main__":
    main()
