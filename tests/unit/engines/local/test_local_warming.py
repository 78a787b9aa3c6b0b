# SPDX-License-Identifier: Apache-2.0
"""Which Dag files get a template process, and when."""

from __future__ import annotations

import pytest

from airflow_dispatch_provider.engines.local._warming import (
    CHANGED_AGAIN_AFTER,
    HANGS_AFTER,
    IN_USE_FOR,
    PARSED_AGAIN_AFTER,
    REMEMBERED,
    Stage,
    Warming,
)


@pytest.fixture
def x() -> Warming:
    return Warming(2)


def parsed(x: Warming, file: str, now: float) -> None:
    """Asked for twice, and ready at once."""
    x.ask(file, now)
    assert x.ask(file, now)
    x.parsing(file, now)
    x.ready(file)


class TestWorthIt:
    def test_one_task_alone_is_not(self, x) -> None:
        """A second one is."""
        assert [x.ask("a", 0), x.ask("a", 1)] == [False, True]

    def test_a_task_of_long_ago_does_not_count(self, x) -> None:
        assert [x.ask("a", 0), x.ask("a", REMEMBERED), x.ask("a", REMEMBERED + 1)] == [False, False, True]

    def test_each_file_for_itself(self, x) -> None:
        assert [x.ask("a", 0), x.ask("b", 0)] == [False, False]

    def test_one_that_is_parsed_is_not_parsed_again(self, x) -> None:
        """Not while it is parsed, nor once it is ready."""
        x.ask("a", 0), x.ask("a", 0)
        x.parsing("a", 0)
        assert (x.ask("a", 1), x.stage("a")) == (False, Stage.PARSING)
        x.ready("a")
        assert (x.ask("a", 2), x.stage("a")) == (False, Stage.READY)


class TestPlaces:
    def test_while_there_are_some(self, x) -> None:
        parsed(x, "a", 0)
        assert x.place_for("b", 1) == (True, None)

    def test_none_is_taken_from_a_file_in_use(self, x) -> None:
        """Three files that are asked for all the time would have no template for long."""
        parsed(x, "a", 0)
        parsed(x, "b", 0)
        assert x.place_for("c", IN_USE_FOR - 1) == (False, None)

    def test_the_one_longest_unused_gives_way(self, x) -> None:
        parsed(x, "a", 0)
        parsed(x, "b", 1)
        x.ask("a", 2)
        assert x.place_for("c", IN_USE_FOR + 1) == (True, "b")


class TestAgain:
    def test_one_that_cannot_be_shared_is_left_alone(self, x) -> None:
        """For a while: it may have changed by then."""
        parsed(x, "a", 0)
        x.over("a", 1, cold=True)
        assert [x.ask("a", PARSED_AGAIN_AFTER), x.ask("a", PARSED_AGAIN_AFTER + 1)] == [False, True]

    def test_one_that_has_changed_is_parsed_again_soon(self, x) -> None:
        parsed(x, "a", 0)
        x.over("a", CHANGED_AGAIN_AFTER + 5)
        assert (x.stage("a"), x.ask("a", CHANGED_AGAIN_AFTER + 5)) == (Stage.NONE, True)

    def test_one_that_changes_all_the_time_is_not(self, x) -> None:
        """A parse for each task would be more work than none."""
        parsed(x, "a", 0)
        x.over("a", 1)
        assert [x.ask("a", CHANGED_AGAIN_AFTER - 1), x.ask("a", CHANGED_AGAIN_AFTER)] == [False, True]


class TestDue:
    def test_an_old_template(self, x) -> None:
        """The things that it read may have changed without a trace."""
        parsed(x, "a", 0)
        assert [x.due(PARSED_AGAIN_AFTER - 1), x.due(PARSED_AGAIN_AFTER)] == [[], ["a"]]

    def test_a_parse_that_hangs(self, x) -> None:
        """The tasks of the file wait for it."""
        x.ask("a", 0), x.ask("a", 0)
        x.parsing("a", 0)
        assert [x.due(HANGS_AFTER - 1), x.due(HANGS_AFTER)] == [[], ["a"]]

    def test_files_that_mean_nothing_any_more_are_forgotten(self, x) -> None:
        """A scheduler sees many versions of many files."""
        x.ask("a", 0)
        parsed(x, "b", 0)
        x.over("b", 0, cold=True)
        x.due(REMEMBERED)
        assert list(x._files) == ["b"]
        x.due(PARSED_AGAIN_AFTER)
        assert list(x._files) == []
