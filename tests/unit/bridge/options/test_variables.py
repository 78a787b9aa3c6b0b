# SPDX-License-Identifier: Apache-2.0
"""Environment variables of backends, read back."""

from __future__ import annotations

from airflow_dispatch_provider.bridge.options.variables import read_variables

OPTIONS = {"celery": ["broker_url", "task_secret"], "common.io": ["path"], "a_b": ["c"], "b": ["c"]}


def read(
    *names: str, backends: tuple[str, ...] = ("gpu", "gpu-2")
) -> tuple[list[tuple[str, str, str]], list[str]]:
    variables, problems = read_variables(names, backends, OPTIONS)
    return [(each.backend, each.section, each.option) for each in variables], [str(each) for each in problems]


def test_backend_section_and_option_are_told_apart():
    """By the names that exist, whatever underscores are in them."""
    assert read("AIRFLOW_DISPATCH__GPU_2__COMMON_IO__PATH", "AIRFLOW__CELERY__BROKER_URL", "PATH") == (
        [("gpu-2", "common.io", "path")],
        [],
    )


def test_what_exists_under_no_name_is_guessed():
    """So that it can be said what of it is wrong."""
    assert read("AIRFLOW_DISPATCH__GPU__CELRY__BROKER_URL") == ([("gpu", "celry", "broker_url")], [])


def test_commands_and_secrets_count_as_their_option():
    """Also in a variable."""
    names = (
        "AIRFLOW_DISPATCH__GPU__CELERY__BROKER_URL_CMD",
        "AIRFLOW_DISPATCH__GPU__CELERY__BROKER_URL_SECRET",
    )
    assert read(*names)[0] == [("gpu", "celery", "broker_url")] * 2


def test_an_option_may_itself_end_like_one_that_names_a_secret():
    """And there may be a secret that gives it."""
    names = "AIRFLOW_DISPATCH__GPU__CELERY__TASK_SECRET", "AIRFLOW_DISPATCH__GPU__CELERY__TASK_SECRET_CMD"
    assert read(*names) == ([("gpu", "celery", "task_secret")] * 2, [])


def test_a_variable_that_can_mean_two_things_is_refused():
    """Two sections that are written alike in it."""
    variables, (problem,) = read_variables(
        ["AIRFLOW_DISPATCH__X__A_B__C"], ["x"], {"a_b": ["c"], "a.b": ["c"]}
    )
    assert variables == []
    assert "can mean [a_b] c of 'x' or [a.b] c of 'x'" in str(problem)


def test_the_longer_name_of_a_backend_is_guessed_first():
    """A variable that begins with two names is more likely the longer one's."""
    assert read("AIRFLOW_DISPATCH__X__A__NO__SUCH", backends=("x", "x--a"))[0] == [("x--a", "no", "such")]
