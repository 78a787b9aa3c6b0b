# SPDX-License-Identifier: Apache-2.0
"""Airflow's configuration as one backend sees it."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException

from airflow_dispatch_provider.bridge import backend_conf, slow_failures
from airflow_dispatch_provider.bridge.backend_conf import (
    BackendConf,
    RunOnce,
    environment_variable,
    settings_source,
)
from airflow_dispatch_provider.exceptions import DispatchConfigError
from tests.support import wait_until

SECRET = "redis://:hunter2@broker"


def make(base: Any = conf, **sections: dict[str, Any]) -> BackendConf:
    return BackendConf("gpu", sections, base)


def test_an_own_option_hides_airflows():
    """Everything else is answered by Airflow."""
    mine = make(core={"dags_folder": "/mine"})
    assert mine.get("core", "dags_folder") == "/mine"
    assert mine.get("core", "executor") == conf.get("core", "executor")


@pytest.mark.parametrize(("section", "key"), [("CELERY", "BROKER_URL"), ("celery", "Broker_Url")])
def test_case_does_not_count(section, key):
    """Providers ask for ``BROKER_URL``."""
    assert make(Celery={"broker_url": SECRET}).get(section, key) == SECRET


def test_typed_getters_read_own_values():
    """As Airflow's parser would read them from the file."""
    mine = make(x={"i": 3, "f": "0.5", "b": True, "off": "False # comment", "j": '{"a": [1]}', "l": "a, b"})
    assert (mine.getint("x", "i"), mine.getfloat("x", "f")) == (3, 0.5)
    assert (mine.getboolean("x", "b"), mine.getboolean("x", "off")) == (True, False)
    assert (mine.getjson("x", "j"), mine.getlist("x", "l")) == ({"a": [1]}, ["a", "b"])
    assert mine.get_mandatory_value("x", "i") == "3"


def test_fallback_is_used_where_nobody_has_the_option():
    """For every getter."""
    mine = make()
    assert mine.get("no_such", "option", fallback="f") == "f"
    assert mine.getint("no_such", "option", fallback=7) == 7
    assert mine.getboolean("no_such", "option", fallback=True) is True


def test_a_value_of_the_wrong_type_is_named_without_being_shown():
    """The message says which option of which backend; the value may be a secret."""
    with pytest.raises(
        AirflowConfigException, match=r"\[celery\] worker_concurrency of the backend 'gpu'"
    ) as error:
        make(celery={"worker_concurrency": "hunter2"}).getint("celery", "worker_concurrency")
    assert "hunter2" not in str(error.value)


def test_an_option_can_come_from_a_command():
    """``<option>_cmd`` is run when the option is first asked for."""
    assert make(celery={"broker_url_cmd": f"echo -n {SECRET}"}).get("celery", "broker_url") == SECRET


def test_an_option_can_come_from_a_secrets_backend(monkeypatch):
    """``<option>_secret`` names a key there."""
    monkeypatch.setattr(backend_conf, "_secret", {"path/of/it": SECRET}.get)
    assert make(celery={"broker_url_secret": "path/of/it"}).get("celery", "broker_url") == SECRET


def test_a_secret_that_is_not_there_is_not_replaced_by_airflows_own_value():
    """Which would be another broker."""
    with pytest.raises(
        AirflowConfigException, match=r"The secret for \[celery\] broker_url of the backend 'gpu'"
    ):
        make(celery={"broker_url_secret": "no/such"}).get("celery", "broker_url")


def test_the_environment_wins(monkeypatch):
    """One variable for each backend, section and option; a command or a secret in one, too."""
    assert (
        environment_variable("gpu-2", "celery", "broker_url") == "AIRFLOW_DISPATCH__GPU_2__CELERY__BROKER_URL"
    )
    monkeypatch.setenv("AIRFLOW_DISPATCH__GPU__CELERY__BROKER_URL", "from environment")
    mine = make(celery={"broker_url": "from config", "result_backend": "from config"})
    assert mine.get("celery", "broker_url") == "from environment"
    monkeypatch.setenv("AIRFLOW_DISPATCH__GPU__CELERY__RESULT_BACKEND_CMD", "echo -n from command")
    assert mine.get("celery", "result_backend") == "from command"


@pytest.fixture
def section() -> Iterator[str]:
    """One that Airflow's own configuration has: Airflow 3.2 reads none from variables alone."""
    name = "celery_broker_transport_options"
    is_new = not conf.has_section(name)
    if is_new:
        conf.add_section(name)
    yield name
    if is_new:
        conf.remove_section(name)


def test_a_section_is_what_airflow_would_make_of_the_same_texts(monkeypatch, section):
    """Numbers and booleans, from the config and from the environment."""
    own = {"socket_timeout": 5, "is_secure": False, "polling_interval": "0.5", "sep": ":", "x": "inf"}
    monkeypatch.setenv("AIRFLOW_DISPATCH__GPU__CELERY_BROKER_TRANSPORT_OPTIONS__MAX_CONNECTIONS", "7")
    for key, value in {**own, "max_connections": 7}.items():
        monkeypatch.setenv(f"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__{key.upper()}", str(value))
    airflows = conf.getsection(section)
    monkeypatch.undo()
    monkeypatch.setenv("AIRFLOW_DISPATCH__GPU__CELERY_BROKER_TRANSPORT_OPTIONS__MAX_CONNECTIONS", "7")
    mine = make(celery_broker_transport_options=own).getsection(section)
    assert {key: (type(mine[key]), mine[key]) for key in [*own, "max_connections"]} == {
        key: (type(airflows[key]), airflows[key]) for key in [*own, "max_connections"]
    }


@pytest.mark.parametrize("getter", ["getint", "getfloat", "getboolean", "getjson"])
@pytest.mark.parametrize(
    "text", ["5", "5.0", "1e3", "0x10", "yes", "T", "true # or not", "[1]", " 7 ", "", "lots"]
)
def test_a_text_is_read_as_airflow_reads_it(getter, text, monkeypatch):
    """Also where it cannot be read."""
    monkeypatch.setenv("AIRFLOW__X__Y", text)

    def outcome(view: Any) -> Any:
        try:
            return getattr(view, getter)("x", "y")
        except AirflowConfigException:
            return AirflowConfigException

    airflows = outcome(conf)
    monkeypatch.delenv("AIRFLOW__X__Y")
    assert outcome(make(x={"y": text})) == airflows


def test_a_command_that_fails_is_named_without_what_it_printed():
    """It may have printed the secret."""
    with pytest.raises(AirflowConfigException, match=r"\[celery\] broker_url of the backend 'gpu'") as error:
        make(celery={"broker_url_cmd": "sh -c 'echo hunter2; exit 3'"}).get("celery", "broker_url")
    assert "hunter2" not in str(error.value)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    """After a time-out, so that the other backends get their turn."""
    monkeypatch.setattr(backend_conf, "COMMAND_TIMEOUT", 0.5)
    child = tmp_path / "child"
    mine = make(celery={"broker_url_cmd": f"sh -c 'sleep 1000 & echo $! > {child}; wait'"})
    with pytest.raises(AirflowConfigException, match="TimeoutExpired"):
        mine.get("celery", "broker_url")
    pid = int(child.read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(10)


@pytest.mark.parametrize("result", ["echo x", "false"])
def test_a_command_is_run_once_whatever_comes_of_it(result, tmp_path):
    """Until it is worth another try; what was fetched stays."""
    runs = tmp_path / "runs"
    mine = make(celery={"broker_url_cmd": f"sh -c 'echo run >> {runs}; {result}'"})
    for _ in range(3):
        with contextlib.suppress(AirflowConfigException):
            mine.get("celery", "broker_url")
    assert runs.read_text() == "run\n"
    mine.forget_failures()
    with contextlib.suppress(AirflowConfigException):
        mine.get("celery", "broker_url")
    assert runs.read_text().count("run") == (2 if result == "false" else 1)


def test_a_command_that_hung_is_run_again_beside_whoever_wants_its_value(tmp_path, monkeypatch):
    """The scheduler would wait for it at every retry of the backend."""
    monkeypatch.setattr(backend_conf, "COMMAND_TIMEOUT", 0.6)
    monkeypatch.setattr(slow_failures, "_REST", 0.0)
    ready = tmp_path / "ready"
    mine = make(celery={"broker_url_cmd": f"sh -c 'test -e {ready} || sleep 1000; echo -n x'"})
    with pytest.raises(AirflowConfigException, match="TimeoutExpired"):
        mine.get("celery", "broker_url")
    monkeypatch.setattr(backend_conf, "COMMAND_TIMEOUT", 60.0)
    mine.forget_failures()
    with pytest.raises(AirflowConfigException, match="TimeoutExpired"):
        mine.get("celery", "broker_url")
    ready.touch()  # before: what is started from here on ends by itself
    for each in psutil.Process().children(recursive=True):
        each.kill()

    def comes() -> bool:
        mine.forget_failures()
        with contextlib.suppress(AirflowConfigException):
            return mine.get("celery", "broker_url") == "x"
        return False

    assert wait_until(comes)


@pytest.mark.parametrize("command", ["true", "echo"])
def test_an_empty_output_is_no_value(command):
    """Celery would take it for the broker on this machine."""
    with pytest.raises(backend_conf.EmptyValue):
        make(celery={"broker_url_cmd": command}).get("celery", "broker_url")


def test_paths_are_expanded_as_in_airflow(monkeypatch):
    """``~`` and ``$NAME``."""
    monkeypatch.setenv("HOME", "/home/of-somebody")
    assert make(kubernetes_executor={"config_file": "~/.kube/config"}).get(
        "kubernetes_executor", "config_file"
    ) == ("/home/of-somebody/.kube/config")


def test_no_value_is_ever_shown():
    """The repr names options only, and a fetched secret is not pickled."""
    mine = make(celery={"broker_url": SECRET, "result_backend_cmd": "echo -n hunter3"})
    mine.get("celery", "result_backend")
    assert "hunter2" not in repr(mine)
    assert "broker_url" in repr(mine)
    assert b"hunter3" not in pickle.dumps(mine).replace(b"echo -n hunter3", b"")


def test_it_survives_pickling():
    """Executors send their configuration to child processes."""
    copy = pickle.loads(pickle.dumps(make(_PicklableConf(), celery={"broker_url": SECRET})))
    assert copy.get("celery", "broker_url") == SECRET
    assert copy.get("a", "b") == "from base"


def test_sections_and_presence_include_own_options():
    """getsection merges, has_option knows."""
    mine = make(celery={"broker_url": SECRET}, core={"executor": "x"})
    assert mine.getsection("celery")["broker_url"] == SECRET
    assert mine.getsection("core")["executor"] == "x"
    assert len(mine.getsection("core")) > 1
    assert mine.has_option("celery", "BROKER_URL")
    assert not mine.has_option("celery", "no_such_option")


class _PicklableConf:
    """Stands in for an ExecutorConf."""

    team_name = "blue"

    def get(self, section: str, key: str, **kwargs: Any) -> str:
        return "from base"


def test_what_a_source_could_not_read_is_asked_for_again(monkeypatch, tmp_path):
    """An API server lives for weeks; what a command has given once stays."""
    runs, ready = tmp_path / "runs", tmp_path / "ready"
    backends = '{"a": {"executor": "LocalExecutor", "slots": 1}}'
    (tmp_path / "given").write_text(backends)
    command = f"sh -c 'echo run >> {runs}; test -e {ready} && cat {tmp_path}/given'"
    monkeypatch.setenv("AIRFLOW__DISPATCH__BACKENDS_CMD", command)
    monkeypatch.delenv("AIRFLOW__DISPATCH__BACKENDS", raising=False)
    source = settings_source(conf)
    with pytest.raises(DispatchConfigError, match=r"cannot be read. The command for \[dispatch\] backends"):
        source.load()
    ready.touch()
    assert list(source.load().backends) == ["a"]
    assert list(source.load().backends) == ["a"]
    assert runs.read_text() == "run\nrun\n"


def test_what_runs_once_answers_as_airflow_does(monkeypatch):
    """By each getter, for what is set and what is not."""
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", SECRET)
    monkeypatch.delenv("AIRFLOW__CELERY__RESULT_BACKEND", raising=False)
    once = RunOnce(conf)
    for each in (once, conf):
        assert each.get("celery", "BROKER_URL") == SECRET
        assert each.get_mandatory_value("celery", "BROKER_URL") == SECRET
        assert each.has_option("celery", "BROKER_URL")
        assert not each.has_option("celery", "RESULT_BACKEND")
        assert each.get("celery", "result_backend", fallback="mine") == "mine"
        assert each.getint("core", "parallelism") == conf.getint("core", "parallelism")
    with pytest.raises(AirflowConfigException):
        once.get("celery", "result_backend")
    assert pickle.loads(pickle.dumps(BackendConf("x", {}, once))).get("celery", "broker_url") == SECRET


@pytest.fixture
def celery_file(monkeypatch) -> Callable[[str], None]:
    """Put lines into [celery] of Airflow's file, where nothing else says what the broker is."""
    for form in ("", "_CMD", "_SECRET"):
        monkeypatch.delenv(f"AIRFLOW__CELERY__BROKER_URL{form}", raising=False)
    conf.get("celery", "broker_url")  # so that the providers' own defaults are there

    def clear() -> None:
        for form in ("", "_cmd", "_secret"):
            conf.remove_option("celery", f"broker_url{form}")

    def put(lines: str) -> None:
        conf.read_string(f"[celery]\n{lines}\n")

    clear()
    yield put
    clear()


@pytest.mark.parametrize(("form", "gives"), [("cmd", "true"), ("secret", "airflow/nothing")])
def test_no_default_stands_in_for_everybodys_command_or_secret_that_gives_nothing(
    celery_file, form, gives, monkeypatch
):
    """Airflow takes the provider's: another broker."""
    monkeypatch.setattr("airflow_dispatch_provider.bridge.backend_conf._secret", lambda path: "")
    celery_file(f"broker_url_{form} = {gives}")
    with pytest.raises(AirflowConfigException, match="gives no text"):
        RunOnce(conf).get("celery", "broker_url")


def test_what_the_reader_of_airflow_3_1_does_not_know_airflows_own_does():
    """It has but two getters, and is what a router there has to ask."""
    bare = SimpleNamespace(get=conf.get, getboolean=conf.getboolean)
    for reader in (RunOnce(bare), BackendConf("x", {}, RunOnce(bare))):
        assert reader.get_mandatory_value("operators", "default_queue") == "default"
        assert reader.get_mandatory_value("celery", "broker_url") == conf.get("celery", "broker_url")
        assert reader.has_option("operators", "default_queue")
        assert not reader.has_option("operators", "nothing_like_it")
    assert BackendConf("x", {}, RunOnce(bare)).getint("core", "parallelism") == conf.getint(
        "core", "parallelism"
    )


def test_everybodys_command_gives_what_it_prints_even_if_that_is_the_default(celery_file):
    """Unless the file has a value itself: Airflow's own order."""
    default = conf.get("celery", "broker_url")
    celery_file(f"broker_url_cmd = echo -n {default}")
    assert RunOnce(conf).get("celery", "broker_url") == default
    celery_file(f"broker_url = {SECRET}")
    assert RunOnce(conf).get("celery", "broker_url") == conf.get("celery", "broker_url") == SECRET


class _TeamConf:
    """An ExecutorConf that has a command in the file."""

    team_name = "blue"

    def get(self, section: str, key: str, fallback: Any = None) -> Any:
        return {"broker_url_cmd": "echo -n hunter2", "broker_url": "redis://default"}.get(key, fallback)


def test_a_teams_command_in_the_file_is_refused_as_airflow_does_not_run_it(celery_file):
    """It would take a default."""
    with pytest.raises(AirflowConfigException, match="is not read for a team"):
        RunOnce(_TeamConf()).get("celery", "broker_url")


def test_a_teams_command_in_the_environment_is_airflows_to_run(celery_file, monkeypatch):
    """There it does."""
    monkeypatch.setenv("AIRFLOW__BLUE___CELERY__BROKER_URL_CMD", "echo -n hunter2")
    assert RunOnce(_TeamConf()).get("celery", "broker_url") == "redis://default"
