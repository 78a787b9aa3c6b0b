# SPDX-License-Identifier: Apache-2.0
"""Tables for people are as wide as their terminal, and break no word; a file or a pipe has whole lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.cli.conftest import Configure, Outcome
from tests.unit.cli.test_commands import BAD, GOOD

Run = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("command", "more", "whole"),
    [
        (
            "validate",
            {"config_file": "/etc/none.yaml"},
            "Either config_file or these options can be used, not both: remove one or the others.",
        ),
        ("routes", {}, "_".join(["long"] * 30)),
        ("explain -q x", {}, "no route matches the queue 'x', so the default is taken; no Dag was given"),
    ],
)
def test_pipe(
    command: str,
    more: dict[str, Any],
    whole: str,
    run: Run,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = {"queue": "x", "dag_id": "_".join(["long"] * 30), "to": ["small", "large"]}
    configure(**{**GOOD, "routes": [long, *GOOD["routes"]], **more})
    assert whole in run(*command.split()).out


def test_error_on_a_terminal(run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(**BAD)
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = run("routes").err
    assert max(map(len, whole.splitlines())) > 80
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("routes").err.splitlines()
    assert max(map(len, lines)) <= 60
    assert "".join(whole.split()) == "".join("".join(lines).split())
    assert lines[1].startswith("  - [dispatch]")
    assert lines[2].startswith("    ")


def test_explanation_on_a_terminal(run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(**GOOD)
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, map(str.rstrip, run("explain", "-q", "batch").out.splitlines()))) <= 50


OPTIONS = {
    "celery": {"broker_url": "redis://h:6379/0", "result_backend_sqlalchemy_engine_options": "{}"},
    "celery_result_backend_transport_options": {"master_name": "m"},
}


@pytest.mark.parametrize(("columns", "is_table"), [("80", False), ("110", True)])
def test_backends_with_long_options_on_a_terminal(
    columns: str, is_table: bool, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that does not fit into its column stays whole: each backend has lines of its own then."""
    configure(backends={"far-away": {"executor": "CeleryExecutor", "slots": 4, "config": OPTIONS}})
    monkeypatch.setenv("COLUMNS", columns)
    text = run("backends").out
    assert {f"{section}.{name}" for section, names in OPTIONS.items() for name in names} <= {*text.split()}
    assert (" | " in text) == is_table
    if not is_table:
        assert text.splitlines()[:2] == ["name      far-away", "executor  CeleryExecutor"]


@pytest.mark.parametrize("columns", ["79", "90", "120"])
def test_words_of_a_table_stay_whole(
    columns: str, run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wide columns give way, between words; the table fits."""
    long = {"queue": "a-queue-of-the-billing-department", "to": ["small", {"backend": "large", "queue": "q"}]}
    configure(**{**GOOD, "routes": [long]})
    monkeypatch.setenv("COLUMNS", columns)
    lines = run("routes").out.splitlines()
    assert max(map(len, map(str.rstrip, lines))) <= int(columns)
    words = {word for line in lines for word in line.split()}
    assert {"a-queue-of-the-billing-department", "overflow_after", "small", "large"} <= words
