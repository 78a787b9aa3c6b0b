# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a backend's own options: each is named once, and its remedy works."""

from __future__ import annotations

import pytest

from . import cases_celery, cases_kubernetes, cases_options
from .cases_options import CELERY, FILES, KUBERNETES, of
from .harness import Case, Configuration, Validate, check, parameters


@pytest.mark.parametrize(
    "case", **parameters([*cases_options.CASES, *cases_celery.CASES, *cases_kubernetes.CASES])
)
def test_mistake_is_named_once_and_its_remedy_works(case: Case, validate: Validate, home: str) -> None:
    check(case, validate, home)


@pytest.mark.parametrize(
    ("backend", "config"),
    [
        *((CELERY, config) for config in ["{}", *cases_celery.RIGHT]),
        *((KUBERNETES, config) for config in ["{}", *cases_kubernetes.RIGHT]),
    ],
)
def test_backends_without_a_mistake(backend: str, config: str, validate: Validate) -> None:
    assert validate(Configuration(of(backend, config), files=FILES)).findings == []
