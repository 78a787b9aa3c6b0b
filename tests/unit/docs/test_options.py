# SPDX-License-Identifier: Apache-2.0
"""Pages about an executor name the options of Airflow's that it does not use."""

from __future__ import annotations

import re

import pytest

from airflow_dispatch_provider.bridge.options.reads import ENGINES
from airflow_dispatch_provider.settings.model import EXECUTOR_ALIASES
from airflow_dispatch_provider.settings.problems import REMEDIES

from .pages import DOCS

REFERENCE = (DOCS / "configuration.md").read_text(encoding="utf-8")
_BOUNDED = [key for key, remedy in REMEDIES.items() if " to 1000000" in remedy and " " not in key]


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


@pytest.mark.parametrize("key", _BOUNDED)
def test_the_reference_has_the_bounds_that_messages_name(key: str) -> None:
    bounds = re.findall(r"from \d to 1000000", REMEDIES[key])[0]
    of_key = re.findall(rf"^### `{key}`\n([^#]*)|^(\| `{key}` [^\n]*)", REFERENCE, re.MULTILINE)
    assert any(bounds in text for found in of_key for text in found)


def test_the_reference_says_how_backends_may_be_called() -> None:
    words = "letters, digits, `-` and `_`, at most 60"
    assert " ".join(REFERENCE.split()).count(words) == 2  # of the option, and of the file
