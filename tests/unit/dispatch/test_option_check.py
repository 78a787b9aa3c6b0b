# SPDX-License-Identifier: Apache-2.0
"""Options of backends: values that can be read, names that exist, and the place at which each was set."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.configuration import conf

from airflow_dispatch_provider.bridge.backend_conf import BackendConf
from airflow_dispatch_provider.dispatch.option_check import OptionCheck
from airflow_dispatch_provider.exceptions import Problem
from airflow_dispatch_provider.routing.model import Route, Target
from airflow_dispatch_provider.settings.model import BackendSettings, Settings
from airflow_dispatch_provider.testing.fixtures import IN_MEMORY

DEFAULT = Route(queue="*", to=(Target(backend="x"),))


def check(executor: str, **config: Any) -> OptionCheck:
    settings = Settings({"x": BackendSettings(executor, 1, config=config)}, (), DEFAULT)
    return OptionCheck(settings, "[dispatch] ")


def values(executor: str, **config: Any) -> list[Problem]:
    return check(executor, **config).values("x", BackendConf("x", config, conf))


CELERY, KUBERNETES, LOCAL = "CeleryExecutor", "KubernetesExecutor", "LocalExecutor"
WHOLE, NUMBER = "is not a whole number.", "is not a number of 0 or more."
ONE, FLAG, OBJECT = (
    "is not a whole number of 1 or more.",
    "is neither true nor false.",
    "is not a JSON object.",
)


@pytest.mark.parametrize(
    ("executor", "section", "option", "right", "wrong", "found"),
    [
        (CELERY, "celery", "broker_url", ["redis://h", "x"], ["", "  "], "is empty."),
        (CELERY, "celery", "operation_timeout", ["0", "1.5"], ["-0.1", "inf", "nan", "x"], NUMBER),
        (CELERY, "celery", "ssl_active", ["True", "false", "1"], ["maybe", "2"], FLAG),
        (CELERY, "celery", "extra_celery_config", ["{}", '{"a": 1}'], ["[]", "1", "{"], OBJECT),
        (CELERY, "celery", "worker_concurrency", ["0", "-1", "16"], ["1.5", "x"], WHOLE),
        (CELERY, "dispatch", "celery_max_unsent", ["1", "7"], ["0", "-1", "x", "1.5"], ONE),
        (KUBERNETES, "kubernetes_executor", "running_pod_log_lines", ["1"], ["0", "x"], ONE),
        (KUBERNETES, "kubernetes_executor", "kube_client_request_args", ["{}"], ['"a"'], OBJECT),
        (
            LOCAL,
            "dispatch",
            "local_template",
            ["fork", "exec", " fork "],
            ["spawn", ""],
            "is neither fork nor exec.",
        ),
        # Of an executor of somebody else's, what Airflow describes as a number has to be one.
        (IN_MEMORY, "celery", "worker_concurrency", ["16"], [], ""),
        (IN_MEMORY, "scheduler", "max_tis_per_query", ["16"], ["x"], WHOLE),
        (IN_MEMORY, "nobody", "knows", ["x", ""], [], ""),
    ],
)
def test_values(
    executor: str, section: str, option: str, right: list[str], wrong: list[str], found: str
) -> None:
    """Each is read as its executor reads it; what it says never quotes the value."""
    for text in right:
        assert values(executor, **{section: {option: text}}) == [], text
    for text in wrong:
        (problem,) = values(executor, **{section: {option: text}})
        assert problem.found == found, text
        assert problem.where == f"[dispatch] backends.x.config.{section}.{option}"


def test_the_remedy_for_a_value_that_has_no_effect_is_to_leave_it_out() -> None:
    """Not to correct it."""
    (without,) = values(CELERY, celery={"worker_concurrency": "x"})
    (other,) = values(CELERY, celery={"operation_timeout": "x"})
    assert without.remedy != "Give a whole number, e.g. 16."
    assert other.remedy == "Give seconds, e.g. 1.5."


@pytest.mark.parametrize(
    ("command", "found"),
    [("echo", "is empty: the command or the secret gives no text."), ("false", "cannot be read. ")],
)
def test_a_command_that_gives_nothing(command: str, found: str) -> None:
    """Whoever reads it would take a default, e.g. another broker."""
    (problem,) = values(CELERY, celery={"broker_url_cmd": command})
    assert problem.found.startswith(found)
    assert problem.remedy.startswith("Correct the command or the secret")
    assert problem.where == "[dispatch] backends.x.config.celery.broker_url_cmd"


def test_whatever_else_a_reading_raises_is_told_by_its_kind() -> None:
    """Its text may have a secret in it."""

    class Broken:
        def get(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyError("hunter2")

    problems = check(LOCAL).values("x", Broken())  # type: ignore[arg-type]
    assert {each.found for each in problems} == {"cannot be read (KeyError)."}


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ("broker_url", "backends.x.config.celery.broker_url"),
        ("Broker_URL", "backends.x.config.celery.Broker_URL"),
        ("broker_url_cmd", "backends.x.config.celery.broker_url_cmd"),
        ("broker_url_secret", "backends.x.config.celery.broker_url_secret"),
    ],
)
def test_the_place_of_an_option_is_where_it_was_set(written: str, where: str) -> None:
    """As it is written there; what was set nowhere is named as executors name it."""
    found = check(CELERY, celery={written: "x"})
    assert found.place("x", "[celery] broker_url") == f"[dispatch] {where}"
    assert found.place("x", "[celery] ssl_key") == "[celery] ssl_key"


@pytest.mark.parametrize("end", ["", "_CMD", "_SECRET"])
def test_a_variable_wins_over_the_config_and_is_named(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its full name is the place, with the end that says how it gives its value."""
    name = f"AIRFLOW_DISPATCH__X__CELERY__BROKER_URL{end}"
    monkeypatch.setenv(name, "x")
    assert check(CELERY, celery={"broker_url": "y"}).place("x", "[celery] broker_url") == name


MEANT = 'Did you mean "{}"?'


@pytest.mark.parametrize(
    ("section", "option", "meant"),
    [
        ("celery", "broker_ulr", "broker_url"),
        ("celery", "broker_ulr_cmd", "broker_url_cmd"),
        ("celery", "Broker_ulr_secret", "broker_url_secret"),
        ("celry", "broker_url", "celery"),
        # A name that itself ends like those that name a secret.
        ("celery", "ssl_kay", "ssl_key"),
    ],
)
def test_a_misspelt_name_is_a_mistake(section: str, option: str, meant: str) -> None:
    """With a suggestion that is spelt as the mistake is: a command stays a command, a section a section."""
    found = check(CELERY, **{section: {option: "x"}})
    (problem,) = found.mistakes()
    place = section if section == "celry" else f"{section}.{option}"
    assert problem.where == f"[dispatch] backends.x.config.{place}"
    assert problem.remedy == MEANT.format(meant)
    assert found.backends_with_mistakes() == {"x"}
    assert list(found.doubts()) == []


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("CELERY__BROKER_ULR", "CELERY__BROKER_URL"),
        ("CELERY__BROKER_ULR_CMD", "CELERY__BROKER_URL_CMD"),
        ("CELERY__BROKER_ULR_SECRET", "CELERY__BROKER_URL_SECRET"),
        ("CELRY__BROKER_URL", "CELERY__BROKER_URL"),
    ],
)
def test_a_misspelt_variable_is_a_mistake(variable: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suggestion is the whole name of a variable, with its end."""
    monkeypatch.setenv(f"AIRFLOW_DISPATCH__X__{variable}", "x")
    (problem,) = check(CELERY).mistakes()
    assert problem.where == f"AIRFLOW_DISPATCH__X__{variable}"
    assert problem.remedy == MEANT.format(f"AIRFLOW_DISPATCH__X__{meant}")


def test_what_has_no_effect_is_a_doubt() -> None:
    """It keeps nothing from starting."""
    found = check(CELERY, celery={"worker_concurrency": "16"})
    (problem,) = found.doubts()
    assert problem.where == "[dispatch] backends.x.config.celery.worker_concurrency"
    assert (list(found.mistakes()), found.backends_with_mistakes()) == ([], set())


def test_a_variable_that_nothing_reads_is_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins like another one of Airflow's."""
    monkeypatch.setenv("AIRFLOW__X__CELERY__BROKER_URL", "redis://h")
    (problem,) = check(CELERY).doubts()
    assert problem.where == "AIRFLOW__X__CELERY__BROKER_URL"
    assert 'Call it "AIRFLOW_DISPATCH__X__CELERY__BROKER_URL"' in problem.remedy


def test_an_executor_that_cannot_be_imported_has_no_mistakes_in_its_names() -> None:
    """Nobody knows what it reads."""
    found = check("no.such.Executor", celery={"nothing_like_it": "x"})
    assert list(found.mistakes()) == []
    assert values("no.such.Executor", celery={"nothing_like_it": "x"}) == []


def test_a_class_of_ones_own_reads_what_it_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And may read more, which is no mistake."""
    from airflow_dispatch_provider.executors import celery_executor

    class Mine(celery_executor.CeleryExecutor):
        pass

    monkeypatch.setattr(celery_executor, "Mine", Mine, raising=False)
    path = "airflow_dispatch_provider.executors.celery_executor.Mine"
    (problem,) = values(path, celery={"operation_timeout": "x", "of_my_own": "x"})
    assert problem.where == "[dispatch] backends.x.config.celery.operation_timeout"
    assert list(check(path, celery={"of_my_own": "x"}).mistakes()) == []
