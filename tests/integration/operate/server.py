# SPDX-License-Identifier: Apache-2.0
"""Run Airflow's own API server with our plugin, whose answers are made up: ``python server.py PORT HELD``. With 0 held,
they are those of the database.

With ``[core] multi_team`` there is a backend of the team ``red`` and one of ``blue``. ``/asked`` tells how often each
question was asked.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import uvicorn
from fastapi.responses import JSONResponse
from operate_answers import FakeAnswers, backend

from airflow_dispatch_provider.bridge.backend_conf import several_teams
from airflow_dispatch_provider.operate import answers


def main() -> None:
    port, held = int(sys.argv[1]), int(sys.argv[2])
    fake = FakeAnswers(held, shown=min(held, 1000), dags=("it_dag", "it_retried"))
    if several_teams():
        fake.teams = [backend(f"of_{team}", team=team) for team in ("red", "blue")]
    module: Any = answers
    if held:
        module.LiveAnswers = lambda: fake

    from airflow.api_fastapi.app import create_app

    app: Any = create_app(apps="core")

    async def with_counts(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/asked":
            await JSONResponse(Counter(fake.asked))(scope, receive, send)
        else:
            await app(scope, receive, send)

    uvicorn.run(with_counts, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
