# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from devkit.programs import helm_build

from ...support import require
from .charts import Chart, charts
from .recipes import Recipe, whole


@pytest.fixture(scope="session")
def helm() -> Path:
    require(helm_build.can_provide(), f"needs helm: {helm_build.ADVICE}")
    return helm_build.helm()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("helm")


@pytest.fixture(scope="session", params=list(charts()), ids=str)
def chart(request: pytest.FixtureRequest) -> Chart:
    found: Chart = request.param
    return found


@pytest.fixture(scope="session", params=whole(), ids=str)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    found: Recipe = request.param
    return found
