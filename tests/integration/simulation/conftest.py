# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .model_side import ModelSide
from .real_side import AirflowSide, make_client
from .sides import Side


@pytest.fixture(scope="session")
def execution_api() -> Any:
    """In this process: it uses the database that this process is connected to."""
    return make_client()


@pytest.fixture(params=["model", "airflow"])
def side(request: pytest.FixtureRequest, database: str, execution_api: Any) -> Iterator[Side]:
    """Each script is run on both."""
    if request.param == "model":
        yield ModelSide()
        return
    airflow = AirflowSide(execution_api)
    yield airflow
    airflow.close()
