# SPDX-License-Identifier: Apache-2.0
"""Pages about an executor name the options of Airflow's that it does not use."""

from __future__ import annotations

import re

import pytest

from airflow_dispatch_provider.bridge.options.reads import ENGINES
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES

from .pages import DOCS


@pytest.mark.parametrize(
    ("page", "executor", "section"),
    [
        ("kubernetes.md", "KubernetesExecutor", "kubernetes_executor"),
        ("celery.md", "CeleryExecutor", "celery"),
    ],
)
def test_options_without_effect_are_those_that_validate_warns_of(page: str, executor: str, section: str):
    paragraphs = (DOCS / page).read_text().split("\n\n")
    (paragraph,) = (text for text in paragraphs if "have no effect" in text)
    named = {words.split()[-1] for words in re.findall(r"`([^`]+)`", paragraph)}
    unused = {
        option
        for (of, option), (found, _) in ENGINES[EXECUTOR_ALIASES[executor]].without_effect.items()
        if of == section and found.startswith("is not used")
    }
    assert named - {f"[{section}]"} == unused
