# SPDX-License-Identifier: Apache-2.0
"""``validate FILE``: a routing file that is not in use yet, against the configuration that is."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run
from .harness import LOCAL, Configuration, airflow_cfg

IN_USE = f"backends: {{a: {LOCAL}, b: {LOCAL}}}\nroutes: [{{queue: q, to: [b]}}]\ndefault: a\n"
WITH_FILE = airflow_cfg(backends="", routes=None, default=None, more="config_file = {home}/used.yaml")


def configuration(new: str | bytes, cfg: str = WITH_FILE, used: str = IN_USE) -> Configuration:
    return Configuration(cfg, files={"used.yaml": used, "new.yaml": new})


def compare(run: Run, new: str, **more: Any) -> tuple[int, dict[str, Any]]:
    code, out, err = run(configuration(new, **more), "validate", "new.yaml", "--output", "json")
    assert not err
    return code, json.loads(out)


def test_what_a_running_scheduler_takes_over(run: Run) -> None:
    new = IN_USE.replace('"slots": 4', '"slots": 6, "cordoned": false', 1).replace(
        "default: a", "default: [b, a]"
    )
    code, answer = compare(run, new)
    assert (code, answer["findings"], answer["restart_for"]) == (0, [], [])
    assert [(change["what"], change["kind"], change["details"]) for change in answer["changes"]] == [
        ("backends.a", "changed", "slots 4 -> 6"),
        ("default", "changed", "a -> b, a"),
    ]


def test_what_a_running_scheduler_does_with_its_backends(run: Run) -> None:
    new = IN_USE.replace("}, b:", ', "config": {"celery": {"broker_url": "redis://:s3cret@h"}}}, c:')
    code, out, _ = run(configuration(new.replace("[b]", "[c]")), "validate", "new.yaml")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("backends.")] == [
        "backends.a changed: config.celery.broker_url added"
        " (it gets no new work, and is started anew when it is empty)",
        "backends.b removed: LocalExecutor (it gets no new work, and is stopped when it is empty)",
        "backends.c added: LocalExecutor, slots 4 (it is started)",
    ]
    assert "A running scheduler would take it over within seconds, without a restart." in out
    assert "s3cret" not in out


@pytest.mark.parametrize(
    "change",
    [
        ("}, b:", ', "config": {"celery": {"broker_ur": "redis://h"}}}, b:'),
        ('"slots": 4', '"slots": "four"'),
    ],
    ids=["needs a restart", "does not"],
)
def test_nothing_is_promised_of_a_file_with_mistakes(run: Run, change: tuple[str, str]) -> None:
    """Neither that a restart helps, nor that a running scheduler takes it over."""
    new = IN_USE.replace(*change, 1)
    code, out, _ = run(configuration(new), "validate", "new.yaml")
    assert (code, "would" in out) == (1, False)


def test_no_difference(run: Run) -> None:
    code, out, _ = run(configuration(f"# the same\n{IN_USE}"), "validate", "new.yaml")
    assert (code, out) == (
        0,
        "new.yaml is right: 2 backends, 1 route and a default.\n\nIt says the same as the configuration in use.\n",
    )


def test_a_file_in_place_of_options(run: Run) -> None:
    """They are no mistake beside it; the scheduler has to be told of the file."""
    code, answer = compare(run, IN_USE.replace("default: a", "default: [b, a]"), cfg=airflow_cfg())
    assert (code, answer["findings"]) == (0, [])
    assert answer["restart_for"] == ["[dispatch] config_file, which is not set"]


def test_mistakes_stand_in_the_file(run: Run, home: str) -> None:
    code, answer = compare(run, IN_USE.replace("[b]", "[c]"))
    assert (code, answer["changes"]) == (1, None)
    assert [finding["where"] for finding in answer["findings"]] == ["new.yaml: routes[0].to[0]"]


def test_options_of_the_configuration_in_use_count(run: Run) -> None:
    """The file is checked as it would be used: with the limits beside it."""
    code, answer = compare(run, IN_USE, cfg=WITH_FILE + "max_held = 0\n")
    assert (code, [finding["where"] for finding in answer["findings"]]) == (1, ["[dispatch] max_held"])


def test_configuration_in_use_that_is_wrong(run: Run) -> None:
    code, answer = compare(run, IN_USE, used="backends: 7")
    assert (code, answer["findings"], answer["changes"]) == (0, [], None)


def test_warnings_count_where_strict(run: Run) -> None:
    new = configuration(IN_USE.replace("queue: q", "queue: 'q**'"))
    assert run(new, "validate", "new.yaml")[0] == 0
    assert run(new, "validate", "new.yaml", "--strict")[0] == 1


def test_file_that_is_not_there(run: Run) -> None:
    code, out, err = run(Configuration(WITH_FILE, files={"used.yaml": IN_USE}), "validate", "new.yaml")
    assert (code, err) == (1, "")
    assert "new.yaml" in out
    assert "No such file or directory" in out
    assert "config_file" not in out


@pytest.mark.timeout(300)
def test_what_no_routing_file_is(airflow: Run, home: str) -> None:
    """As a process of its own: a named pipe ends it no later than any other mistake."""
    os.mkfifo(Path(home, "pipe"))
    code, out, _ = airflow(Configuration(WITH_FILE, files={"used.yaml": IN_USE}), "validate", "pipe")
    assert (code, "is a named pipe" in out) == (1, True)
    assert stat.S_ISFIFO(os.stat(Path(home, "pipe")).st_mode)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_findings_fit_the_terminal(columns: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places and remedies are wrapped; what is to be copied stays whole."""
    monkeypatch.setenv("COLUMNS", str(columns))
    wrong = Configuration(airflow_cfg(default="aa", routes='[{"queue": "gpu-[ab", "to": ["bb"]}]'))
    code, out, _ = run(wrong, "validate")
    assert code == 1
    assert max(map(len, out.splitlines())) <= min(columns, 110)
    assert out.endswith("3 mistakes.\n")
    assert '"gpu-[[]ab"' in out
