# SPDX-License-Identifier: Apache-2.0
"""Questions to an executor of somebody else's about tasks of a dead scheduler."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines._adopting import Adopting
from airflow_dispatch_provider.engines.engine import Found
from airflow_dispatch_provider.testing import InMemoryExecutor, make_task


class Executor(InMemoryExecutor):
    """Notes which tasks it is asked about; ``mine`` it has, over ``bad`` ones it fails."""

    def __init__(self) -> None:
        super().__init__(parallelism=1)
        self.questions: list[list[int]] = []
        self.mine: set[int] = set()
        self.bad: set[int] = set()

    def try_adopt_task_instances(self, tis: Any) -> Any:
        numbers = [ti.id.int for ti in tis]
        self.questions.append(numbers)
        if self.bad.intersection(numbers):
            raise ValueError("a bug")
        return [ti for ti in tis if ti.id.int not in self.mine]

    def take(self) -> list[list[int]]:
        taken, self.questions = self.questions, []
        return taken


def found(number: int, runs: bool = False) -> Found:
    return Found(number, f"key {number}", make_task(id=UUID(int=number)).ti, runs)


class Case:
    def __init__(self, *tasks: Found) -> None:
        self.executor, self.adopting = Executor(), Adopting("x")
        self.adopting.add(tasks)

    def ask(self, now: float = 0.0) -> dict[int, bool]:
        """By dispatch, whether it has it."""
        answers = list(self.adopting.ask(self.executor, now))
        for each in answers:
            known = airflow_api.task_key(self.executor, each.found.ti)
            assert each.child_key in (known, None)
            assert (each.child_key is not None) >= each.has
        return {each.found.dispatch: each.has for each in answers}


def test_all_are_asked_about_together() -> None:
    """Each gets an answer, and is not asked about again."""
    case = Case(found(1), found(2, runs=True), found(3))
    case.executor.mine = {2, 3}
    assert len(case.adopting) == 3
    assert case.ask() == {1: False, 2: True, 3: True}
    assert case.executor.take() == [[1, 2, 3]]
    assert (len(case.adopting), case.ask(), case.executor.take()) == (0, {}, [])


def test_where_a_question_fails_each_is_asked_about_alone(caplog: pytest.LogCaptureFixture) -> None:
    """After growing delays; what fails five times by itself is not there, and it is said once."""
    case = Case(*(found(number, runs=number == 3) for number in (1, 2, 3)))
    case.executor.bad, case.executor.mine = {2}, {1, 3}
    assert case.ask() == {}
    assert case.ask() == {1: True, 3: True}
    assert case.executor.take() == [[1, 2, 3], [1], [2], [3]]
    asked, now = [], 0.0
    while len(case.adopting):
        now += 0.5
        answer = case.ask(now)
        asked += [now] * len(case.executor.take())
    assert answer == {2: False}
    assert asked == [1.0, 3.0, 7.0, 15.0]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_one_by_one_no_more_than_ten_are_asked_about_at_a_time() -> None:
    """Each question may take long, and a heartbeat waits for it."""
    case = Case(*map(found, range(1, 24)))
    case.executor.bad = {23}
    assert case.ask() == {}
    assert list(case.ask()) == [*range(1, 11)]
    assert list(case.ask()) == [*range(11, 21)]
    case.adopting.add([found(30)])
    assert list(case.ask()) == [30, 21, 22]


def test_what_is_forgotten_is_not_asked_about() -> None:
    """The caller is told whether there was anything to forget."""
    case = Case(found(1), found(2))
    assert case.adopting.forget(1)
    assert not case.adopting.forget(1)
    assert case.ask() == {2: False}


@pytest.mark.parametrize("error", [KeyboardInterrupt()], ids=repr)
def test_what_is_meant_for_the_process_is_raised(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C ends the scheduler, and no adoption."""
    case = Case(found(1))

    def ends(tis: Any) -> Any:
        raise error

    monkeypatch.setattr(case.executor, "try_adopt_task_instances", ends)
    with pytest.raises(type(error)):
        case.ask()


def test_an_answer_of_another_kind_is_an_error() -> None:
    """Not a scheduler's end."""
    case = Case(found(1))
    case.executor.try_adopt_task_instances = lambda tis: None  # type: ignore[method-assign]
    assert case.ask() == {}
    assert len(case.adopting) == 1
