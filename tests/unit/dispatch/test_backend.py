# SPDX-License-Identifier: Apache-2.0
"""An executor under a name: why it cannot be had, how it is made, and what it uses."""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import Any, ClassVar

import pytest
from airflow.configuration import conf

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.dispatch.backend import (
    Backend,
    clashes,
    import_executor_class,
    in_start_order,
    kinds_of,
)
from airflow_dispatch_provider.engines.foreign import ForeignEngine
from airflow_dispatch_provider.engines.guarded import GuardedEngine
from airflow_dispatch_provider.engines.protocols import Claim
from airflow_dispatch_provider.exceptions import BackendUnavailable, Problem
from airflow_dispatch_provider.routing.model import EXECUTE_TASK
from airflow_dispatch_provider.settings.model import BackendSettings, Limits
from airflow_dispatch_provider.testing import InMemoryExecutor

SELF = __name__
AIRFLOWS = "airflow.executors.local_executor.LocalExecutor"


class Counts(InMemoryExecutor):
    counts_workers = True


class Unreadable(type(InMemoryExecutor)):  # type: ignore[misc]
    @property
    def serve_logs(cls) -> bool:
        raise KeyError("hunter2")


class CannotBeRead(InMemoryExecutor, metaclass=Unreadable):
    pass


class Claiming(InMemoryExecutor):
    """Has a file that only one may have; ``mine`` are those of the backends, as they are made."""

    mine: ClassVar[list[Any]] = []

    def claims(self) -> Any:
        found = self.mine.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


class Faulty(InMemoryExecutor):
    """Cannot be made the first time."""

    made: ClassVar[list[Any]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.made.append(self)
        if len(self.made) == 1:
            raise OSError("not yet")
        super().__init__(*args, **kwargs)


class Checked(InMemoryExecutor):
    @staticmethod
    def conf_problems(backend_conf: Any) -> list[Problem] | None:
        text = backend_conf.get("own", "option", fallback=None)
        return [Problem("own", text, "Correct it.")] if text else None


class Face(InMemoryExecutor):
    """Of an engine of its own."""

    def make_engine(self, name: str, slots: int, *, counts_workers: bool) -> ForeignEngine:
        return ForeignEngine(f"own engine of {name}", lambda: self, slots)


def backend(cls: type[Any] | str, name: str = "x", slots: Any = 3, **config: Any) -> Backend:
    path = cls if isinstance(cls, str) else f"{SELF}.{cls.__name__}"
    return Backend(name, BackendSettings(path, slots, config=config), conf, "a team")


@pytest.mark.parametrize(
    ("executor", "slots", "found", "remedy"),
    [
        (
            "Local",
            1,
            "Local is no executor's name.",
            "Take LocalExecutor, CeleryExecutor, KubernetesExecutor, or",
        ),
        (f"{SELF}.Backend", 1, f"{SELF}.Backend is not an executor", "Correct 'executor'"),
        (f"{SELF}.Nothing", 1, f"{SELF} has no Nothing.", f"Correct 'executor': {SELF} has "),
        ("collections.Nothing", 1, "collections has no Nothing.", "Correct 'executor'."),
        (
            f"{SELF}.CannotBeRead",
            1,
            f"{SELF}.CannotBeRead has a class attribute that cannot be read (KeyError).",
            "",
        ),
        (
            AIRFLOWS,
            "workers",
            f"{AIRFLOWS} cannot count its workers.",
            "Give 'slots' as a number.",
        ),
        (
            "airflow.executors.base_executor.BaseExecutor",
            1,
            "airflow.executors.base_executor.BaseExecutor is abs",
            "",
        ),
        (
            "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor",
            1,
            "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor is a router.",
            "A backend is an executor that runs tasks.",
        ),
        (
            "no.such.LocalExecutor",
            1,
            "no.such.LocalExecutor cannot be",
            "Correct 'executor', or give LocalExecutor,",
        ),
        ("no.such.Executor", 1, "no.such.Executor cannot be imported", "Correct 'executor', or install"),
    ],
)
def test_why_it_cannot_be_had(executor: str, slots: Any, found: str, remedy: str) -> None:
    """With a remedy, and without the text of an error, which may quote anything."""
    with pytest.raises(BackendUnavailable) as caught:
        import_executor_class(BackendSettings(executor, slots))
    assert caught.value.found.startswith(found)
    assert caught.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("cls", "slots"), [(InMemoryExecutor, 1), (Counts, 1), (Counts, "workers"), (InMemoryExecutor, "workers")]
)
def test_what_can_be_had(cls: type[Any], slots: Any) -> None:
    """One that counts its workers may have as many slots as these."""
    path = f"{SELF}.{cls.__name__}"
    assert import_executor_class(BackendSettings(path, slots)) is cls


def test_it_is_made_once_and_when_it_is_needed() -> None:
    """With its own slots as the parallelism, wherever it reads that."""
    made = backend(InMemoryExecutor, core={"PARALLELISM": "99", "dags_folder": "/here"})
    assert made.made is None
    executor = made.executor
    assert made.executor is made.made is executor
    assert (executor.parallelism, executor.team_name) == (3, "a team" if AIRFLOW_V_3_2_PLUS else None)
    assert made.conf.getint("core", "parallelism") == 3
    assert made.conf.get("core", "dags_folder") == "/here"
    assert repr(made) == f"Backend('x', {SELF}.InMemoryExecutor, slots=3)"


def test_what_it_says_of_its_own_configuration() -> None:
    """Nothing, where it does not check it, or finds nothing."""
    assert backend(InMemoryExecutor).conf_problems() == []
    assert backend(Checked).conf_problems() == []
    assert backend(Checked, own={"option": "wrong"}).conf_problems() == [
        Problem("own", "wrong", "Correct it.")
    ]


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (InMemoryExecutor, ForeignEngine),
        ("LocalExecutor", GuardedEngine),
        ("no.such.Executor", GuardedEngine),
    ],
)
def test_an_engine_of_ours_is_taken_instead_of_its_executor(cls: Any, kind: type[Any]) -> None:
    """Another executor is put behind the protocol of engines; of a class that is not there yet nobody knows."""
    engine = backend(cls).engine(Limits(), lambda executor: None, tuple, time.monotonic)
    assert type(engine) is kind


@pytest.mark.parametrize(("base", "has_engine"), [(Face, True), (InMemoryExecutor, False)])
def test_a_class_that_is_there_later_is_used_as_it_would_have_been_at_once(
    base: type[Any], has_engine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package may be installed, or its disk be mounted, while the scheduler runs."""
    now = [0.0]
    made = backend("late_executor.Late")
    engine = made.engine(Limits(retry_min_delay=1.0), lambda executor: None, tuple, lambda: now[0])
    engine.start("1")
    assert "late_executor" in (engine.room().unavailable or "")
    module = ModuleType("late_executor")
    module.Late = type("Late", (base,), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    now[0] = 2.0
    engine.poll()
    assert engine.room().unavailable is None
    assert (made.has_engine, "own engine" in repr(engine)) == (has_engine, has_engine)
    assert (made.take_late(), made.take_late()) == (True, False)


def test_one_that_could_not_be_made_is_made_anew() -> None:
    """After a while, with its configuration read again; it is prepared each time, before its start."""
    Faulty.made.clear()
    now, prepared, checks = [0.0], [], []
    made = backend(Faulty)
    limits = Limits(retry_min_delay=4.0)
    engine = made.engine(limits, prepared.append, lambda: checks.append(1) or (), lambda: now[0])  # type: ignore[func-returns-value]
    engine.start("1")
    assert "OSError: not yet" in (engine.room().unavailable or "")
    now[0] = 1.9
    engine.poll()
    assert engine.room().unavailable
    now[0] = 4.0
    engine.poll()
    assert engine.room().unavailable is None
    assert (prepared, len(checks)) == ([made.executor], 2)
    assert made.executor is Faulty.made[1]


def test_a_mistake_in_its_configuration_keeps_it_from_being_made() -> None:
    """The mistake is named as the reason why it takes nothing."""
    Faulty.made.clear()
    made = backend(Faulty)
    wrong = Problem("[own] option", "is wrong.", "Correct it.")
    engine = made.engine(Limits(), lambda executor: None, lambda: [wrong], time.monotonic)
    engine.start("1")
    assert "[own] option: is wrong." in (engine.room().unavailable or "")
    assert (made.made, Faulty.made) == (None, [])


HERE, THERE, ALL = Claim("server", "here"), Claim("server", "there"), Claim("server")


@pytest.mark.parametrize(
    ("claims", "clashing"),
    [
        ([[HERE], [HERE]], {"b": "'a'"}),
        ([[HERE], [THERE]], {}),
        ([[HERE, THERE], [THERE, HERE]], {"b": "'a'"}),
        ([[HERE], [THERE], [ALL]], {"c": "'a'"}),
        ([[HERE], [HERE], [HERE]], {"b": "'a'", "c": "'a'"}),
        # What cannot say it is passed over.
        ([[HERE], ValueError(), [HERE]], {"c": "'a'"}),
        ([[HERE], None, [THERE]], {}),
    ],
)
def test_what_only_one_may_use(claims: list[Any], clashing: dict[str, str]) -> None:
    """One problem for each later backend, which names the first that has it."""
    Claiming.mine[:] = claims
    found = list(clashes([backend(Claiming, name) for name, _ in zip("abc", claims, strict=False)], "place "))
    assert {each.where.removeprefix("place backends."): each for each in found}.keys() == clashing.keys()
    for each in found:
        assert f"as the backend {clashing[each.where[-1]]} does" in each.found
        assert each.remedy == "Give each its own."


def test_nothing_is_made_to_ask_what_it_uses_that_cannot_say() -> None:
    """Its constructor might start processes."""
    others = [backend(InMemoryExecutor), backend("no.such.Executor")]
    assert list(clashes(others, "")) == []
    assert others[0].made is None


def test_who_may_fork_is_started_before_who_begins_threads() -> None:
    """A child would inherit the locks that threads hold at that moment, and wait for them for ever."""
    paths = {
        "pods": "KubernetesExecutor",
        "workers": "CeleryExecutor",
        "theirs": "airflow_dispatch_provider.testing.InMemoryExecutor",
        "absent": "no.such.Executor",
        "here": "LocalExecutor",
    }
    backends = [Backend(name, BackendSettings(path, 1), conf, None) for name, path in paths.items()]
    assert [each.name for each in in_start_order(backends)] == ["here", "theirs", "absent", "pods", "workers"]


def test_kinds_of_all_backends() -> None:
    """Tasks always, also where a class cannot be had."""
    assert kinds_of([]) == kinds_of([backend("no.such.Executor")]) == {EXECUTE_TASK}
    assert kinds_of([backend("no.such.Executor"), backend("LocalExecutor")]) >= {EXECUTE_TASK}
