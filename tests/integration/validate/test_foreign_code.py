# SPDX-License-Identifier: Apache-2.0
"""Modules of users that ``validate`` imports: whatever they do, there is an answer, and no text of theirs in it."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import pytest
from airflow.configuration import conf

from airflow_dispatch_provider.dispatch.backend import Backend, clashes, in_start_order
from airflow_dispatch_provider.settings.model import BackendSettings, Limits

from .cases_options import CELERY, FILES, of
from .conftest import Run
from .harness import LOCAL, ROUTER, Configuration, airflow_cfg, answer

NUMBER = itertools.count()
IMPATIENT = {"AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "0.2"}

RAISES = {
    "ImportError": "raise ImportError('no redis://:hunter2@h with hunter2')",
    "ModuleNotFoundError": "import hunter3",
    "RuntimeError": "raise RuntimeError('hunter2')",
    "SystemExit": "raise SystemExit('hunter2')",
    "nothing of that name": "hunter2 = 1",
    "is abstract": (
        "import abc\n"
        "from airflow.executors.base_executor import BaseExecutor\n"
        "class E(BaseExecutor, abc.ABC):\n"
        "    @abc.abstractmethod\n"
        "    def hunter2(self): ..."
    ),
}


@pytest.fixture
def module(home: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that no other test has imported; its file is to be written."""
    monkeypatch.syspath_prepend(home)
    return f"users_module_{next(NUMBER)}"


@pytest.mark.parametrize("error", RAISES)
def test_executor_that_cannot_be_had(error: str, module: str, run: Run) -> None:
    cfg = airflow_cfg(executor=f"{ROUTER},{module}.E")
    code, out, err = run(
        Configuration(cfg, files={f"{module}.py": f"print('hello')\n{RAISES[error]}"}),
        "validate",
        "--output",
        "json",
    )
    (finding,) = answer(code, out).findings
    assert (code, finding["where"]) == (1, "[core] executor")
    assert error in finding["found"]
    assert "hunter2" not in out + err


@pytest.mark.parametrize("error", ["ImportError", "SystemExit"])
def test_module_that_raises_is_run_once(error: str, module: str, run: Run, home: str) -> None:
    """However many executors it is to bring, and in however many places it is asked for."""
    backends = (
        f'{{"a": {{"executor": "{module}.E", "slots": 1}}, "b": {{"executor": "{module}.F", "slots": 1}}}}'
    )
    cfg = airflow_cfg(backends=backends, executor=f"{ROUTER},{module}.E")
    text = f"open({home!r} + '/runs', 'a').write('run ')\n{RAISES[error]}"
    code, _, _ = run(Configuration(cfg, files={f"{module}.py": text}), "validate")
    assert (code, Path(home, "runs").read_text()) == (1, "run ")


def test_missing_module_is_named(module: str, run: Run) -> None:
    cfg = airflow_cfg(executor=f"{ROUTER},{module}.E")
    _, out, _ = run(Configuration(cfg, files={f"{module}.py": "import hunter3"}), "validate")
    assert "(ModuleNotFoundError: hunter3)" in out


@pytest.mark.parametrize("command", ["validate", "backends"])
def test_what_users_code_prints_goes_to_stderr(command: str, module: str, run: Run) -> None:
    executor = "from airflow.executors.base_executor import BaseExecutor\nclass E(BaseExecutor): ..."
    cfg = airflow_cfg(
        backends=f'{{"a": {{"executor": "{module}.E", "slots": 1}}}}', routes=None, executor=ROUTER
    )
    code, out, err = run(
        Configuration(cfg, files={f"{module}.py": f"print('hello')\n{executor}"}), command, "--output", "json"
    )
    assert (code, err) == (0, "hello\n")
    answer(code, out)


UNFIT = {
    "imports on demand": ("def __getattr__(name): raise ImportError('no hunter2')", "cannot be imported (ImportError)"),
    "ends the process on demand": ("def __getattr__(name): raise SystemExit('hunter2')", "(SystemExit)"),
    "has an attribute that raises": (
        "from airflow.executors.base_executor import BaseExecutor\n"
        "class Raises:\n"
        "    def __get__(self, instance, owner): raise RuntimeError('hunter2')\n"
        "class E(BaseExecutor): is_local = Raises()",
        "has a class attribute that cannot be read (RuntimeError)",
    ),
    "is a router": (f"from {ROUTER.rpartition('.')[0]} import *\nclass E(DispatchExecutor): ...", "is a router"),
    "is a name of the router": (
        "from airflow_dispatch_provider.executors import by_name\nclass E(by_name.LocalExecutor): ...",
        "is a router",
    ),
    "is the base class": ("from airflow.executors.base_executor import BaseExecutor as E", "is abstract"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNFIT)
def test_class_that_can_be_no_backend(what: str, module: str, run: Run, home: str) -> None:
    """It is the mistake of one backend, and stops neither the answer nor the start of the others."""
    code, found = UNFIT[what]
    backends = f'{{"a": {{"executor": "{module}.E", "slots": 1}}, "b": {LOCAL}}}'
    status, out, err = run(
        Configuration(airflow_cfg(backends=backends), files={f"{module}.py": code}),
        "validate",
        "--output",
        "json",
    )
    (finding,) = answer(status, out).findings
    assert (status, finding["where"]) == (1, "[dispatch] backends.a.executor")
    assert found in finding["found"]
    assert "hunter2" not in out + err
    started = [
        Backend(name, BackendSettings(path, 1), conf, None)
        for name, path in (("a", f"{module}.E"), ("b", "LocalExecutor"))
    ]
    assert list(clashes(started, "")) == []
    assert [backend.name for backend in in_start_order(started)] == ["b", "a"]
    engine = started[0].engine(Limits(), lambda executor: None, tuple, time.monotonic)
    engine.start("1")
    assert engine.room().unavailable


def test_users_code_that_ends_the_process_ends_it_with_an_error(module: str, run: Run) -> None:
    executor = (
        "from airflow.executors.base_executor import BaseExecutor\n"
        "class E(BaseExecutor):\n"
        "    def config_problems(self): raise SystemExit(0)"
    )
    cfg = airflow_cfg(backends=f'{{"a": {{"executor": "{module}.E", "slots": 1}}}}', routes=None)
    code, out, err = run(Configuration(cfg, files={f"{module}.py": executor}), "validate")
    assert code == 1
    assert out + err


EXECUTOR = """
import threading
from airflow.executors.base_executor import BaseExecutor

def hang(*args, **kwargs):
    threading.Event().wait()
{top}
class E(BaseExecutor):
    {method}
    def config_problems(self): return []
"""
HANGS = {
    "import": ("hang()", "pass", "its module takes longer than 0.2 s"),
    "constructor": ("", "__init__ = hang", "takes longer than 0.4 s"),
    "check of the configuration": ("", "conf_problems = hang", "takes longer than 0.4 s"),
    "check of its options": ("", "config_doubts = hang", "takes longer than 0.4 s"),
    "claim": ("", "claims = hang", None),
}


@pytest.mark.parametrize("what", HANGS)
def test_executor_that_hangs(what: str, module: str, run: Run) -> None:
    """There is an answer all the same, and what is wrong elsewhere is in it."""
    top, method, found = HANGS[what]
    backends = f'{{"a": {{"executor": "{module}.E", "slots": 1}}, "b": {LOCAL}}}'
    cfg = airflow_cfg(backends=backends, routes='[{"queue": "gpu-.*", "to": ["b"]}]')
    files = {f"{module}.py": EXECUTOR.format(top=top, method=method)}
    code, out, _ = run(Configuration(cfg, IMPATIENT, files), "validate", "--output", "json")
    *mistakes, doubt = answer(code, out).findings
    assert [row["where"] for row in mistakes] == ["[dispatch] backends.a.executor"] * (found is not None)
    assert found is None or found in mistakes[0]["found"]
    assert doubt["where"] == "[dispatch] routes[0].queue"


def test_executor_that_hangs_in_the_list_of_airflow(module: str, run: Run, home: str) -> None:
    """It is named once, however often it is asked for, and its import is tried once."""
    text = f"open({home!r} + '/runs', 'a').write('run ')\n" + EXECUTOR.format(top="hang()", method="pass")
    configuration = Configuration(
        airflow_cfg(executor=f"{ROUTER},{module}.E"), IMPATIENT, {f"{module}.py": text}
    )
    code, out, _ = run(configuration, "validate", "--output", "json")
    (finding,) = answer(code, out).findings
    assert (code, finding["where"]) == (1, "[core] executor")
    assert "whose import takes longer than 0.2 s" in finding["found"]
    assert Path(home, "runs").read_text() == "run "


def test_options_of_celery_that_hang(module: str, run: Run) -> None:
    configuration = Configuration(
        of(CELERY, f'{{"celery": {{"celery_config_options": "{module}.OPTIONS"}}}}'),
        IMPATIENT,
        {**FILES, f"{module}.py": EXECUTOR.format(top="hang()", method="pass")},
    )
    code, out, _ = run(configuration, "validate", "--output", "json")
    (finding,) = answer(code, out).findings
    assert (code, finding["where"]) == (1, "[dispatch] backends.c.config.celery.celery_config_options")
    assert "names a module whose import takes longer than 0.2 s" in finding["found"]


def test_preloaded_modules_are_looked_for_without_a_run_of_their_package(module: str, run: Run) -> None:
    cfg = airflow_cfg(more=f"local_preload = {module}.sub, {module}.inner.sub, {module}.inner.missing")
    files = {
        f"{module}/__init__.py": "raise SystemExit(3)",
        f"{module}/sub.py": "",
        f"{module}/inner/__init__.py": "raise SystemExit(3)",
        f"{module}/inner/sub.py": "",
    }
    code, out, _ = run(Configuration(cfg, files=files), "validate", "--output", "json")
    (finding,) = answer(code, out).findings
    assert (code, f"{module}.inner.missing" in finding["found"]) == (0, True)
    assert module not in sys.modules
