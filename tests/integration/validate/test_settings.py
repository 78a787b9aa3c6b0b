# SPDX-License-Identifier: Apache-2.0
"""Mistakes in ``[dispatch]`` and in the routing file: each is named once, and its remedy works."""

from __future__ import annotations

import pytest

from .cases_settings import CASES
from .conftest import Run
from .harness import Case, Configuration, Validate, airflow_cfg, answer, check, parameters


@pytest.mark.parametrize("case", **parameters(CASES))
def test_mistake_is_named_once_and_its_remedy_works(case: Case, validate: Validate, home: str) -> None:
    check(case, validate, home)


def test_configuration_without_a_mistake(validate: Validate) -> None:
    assert validate(Configuration(airflow_cfg())).findings == []


def test_process_of_its_own_finds_the_same(airflow: Run, validate: Validate) -> None:
    wrong = Configuration(airflow_cfg(default="aa"))
    code, out, _ = airflow(wrong, "validate", "--output", "json")
    assert answer(code, out) == validate(wrong)
