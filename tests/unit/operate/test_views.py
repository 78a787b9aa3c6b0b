# SPDX-License-Identifier: Apache-2.0
"""Answers lose what a user may not see, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from operate_answers import FakeAnswers, backend, group, now, running_task, scheduler, waiting_task

from airflow_dispatch_provider.operate.model import (
    NotBegun,
    OrderInForce,
    RunningOfTeams,
    Status,
    Uncounted,
    WaitingOfTeams,
)
from airflow_dispatch_provider.operate.views import running_for, status_for, waiting_for, waiting_of_teams


@dataclass
class Rights:
    """A user of these teams, who may read these Dags."""

    teams: frozenset[str | None] = frozenset({None, "a", "b"})
    acts: frozenset[str | None] = frozenset()
    dags: frozenset[str] = frozenset()
    asked: list[str | None] = field(default_factory=list)

    def sees_team(self, team: str | None) -> bool:
        self.asked.append(team)
        return team in self.teams

    def acts_for(self, team: str | None) -> bool:
        return team in self.acts

    def readable(self, dag_ids: set[str]) -> set[str]:
        return dag_ids & self.dags


STATUS = Status(
    now(),
    [scheduler("everybodys"), scheduler("of_b", team="b")],
    [
        backend("shared", dags={"open": 2, "closed": 1}),
        backend("mine", team="a"),
        backend("theirs", team="b"),
        backend("theirs_too", team="b"),
    ],
)


def test_a_team_sees_its_own_backends_and_those_of_nobody() -> None:
    """And only such schedulers."""
    seen = status_for(Rights(teams=frozenset({None, "a"})), STATUS)
    assert [each.name for each in seen.backends] == ["shared", "mine"]
    assert [each.id for each in seen.schedulers] == ["everybodys"]


def test_orders_of_other_teams_are_not_shown() -> None:
    """Nor that there is such a backend."""
    orders = [OrderInForce("drain", "gone", team, "ann", "", now(), None) for team in (None, "a", "b")]
    seen = status_for(Rights(teams=frozenset({None, "a"})), replace(STATUS, other_orders=orders))
    assert [each.team for each in seen.other_orders] == [None, "a"]


def test_schedulers_that_are_not_counted_are_shown_to_their_team() -> None:
    """In every answer: what they had is nobody else's."""
    silent = [Uncounted("3", None, "shared"), Uncounted("3", "a", "mine"), Uncounted("3", "b", "theirs")]
    rights = Rights(teams=frozenset({None, "a"}))
    for seen in (
        status_for(rights, replace(STATUS, uncounted=silent)),
        waiting_for(rights, WaitingOfTeams(now(), {}, [], [], uncounted=silent), 9),
        running_for(rights, RunningOfTeams(now(), {}, [], uncounted=silent), 9),
    ):
        assert [each.words for each in seen.uncounted] == ["shared", "mine"]


def test_each_team_is_asked_about_once() -> None:
    """However many backends it has: an auth manager may ask a server."""
    rights = Rights()
    status_for(rights, STATUS)
    assert sorted(map(str, rights.asked)) == ["None", "a", "b"]


def test_one_team_can_be_asked_for() -> None:
    """Its backends alone; nothing where the user does not see it."""
    assert [each.name for each in status_for(Rights(), STATUS, "b").backends] == ["theirs", "theirs_too"]
    assert status_for(Rights(teams=frozenset({None})), STATUS, "b").backends == []


def test_dags_that_may_not_be_read_are_not_named() -> None:
    """The numbers of slots stay as they are."""
    seen = status_for(Rights(dags=frozenset({"open"})), STATUS).backends[0]
    assert seen.dags == {"open": 2}
    assert seen.used == STATUS.backends[0].used


def test_whoever_acts_for_a_team_may_act_for_no_other() -> None:
    """The page shows orders where they would be carried out."""
    reader, actor = (status_for(Rights(acts=acts), STATUS) for acts in (frozenset(), frozenset({"a"})))
    assert (reader.may_act, reader.acts_for) == (False, [])
    assert (actor.may_act, actor.acts_for) == (True, ["a"])


def test_rights_about_a_team_that_is_not_seen_are_not_told() -> None:
    """Its name would be, too."""
    seen = status_for(Rights(teams=frozenset({None}), acts=frozenset({None, "b"})), STATUS)
    assert seen.acts_for == [None]


def test_waiting_tasks_are_those_of_readable_dags() -> None:
    """Places and totals count all that wait."""
    waiting = FakeAnswers(held=9).waiting(None, None, None)
    seen = waiting_for(Rights(dags=frozenset({"billing"})), waiting, 9)
    assert {task.dag_id for task in seen.tasks} == {"billing"}
    assert [task.position for task in seen.tasks] == [1, 3, 5]
    assert (seen.total, [each.held for each in seen.groups]) == (9, [9])


def test_groups_of_other_teams_are_left_out_and_not_counted() -> None:
    """A team sees how much waits for what it sees."""
    groups = [group("shared", 5), group("theirs", 7, team="b")]
    rights = Rights(teams=frozenset({None, "a"}))
    for asked in (groups, groups[:1], []):
        seen = waiting_for(rights, WaitingOfTeams(now(), {None: 5, "b": 7}, asked, []), 9)
        assert ([each.backend for each in seen.groups], seen.total) == (["shared"][: len(asked)], 5)


def test_what_may_not_be_seen_takes_no_place_in_the_list() -> None:
    """Tasks of other Dags and of other teams' backends come before; whoever reads only a later one sees that."""
    tasks = [
        waiting_task("closed", "secret"),
        waiting_task("open", "theirs", team="b"),
        replace(waiting_task("", "a_connection_of_theirs"), team="b"),
        waiting_task("open", "mine"),
        waiting_task("open", "late"),
    ]
    rights = Rights(teams=frozenset({None, "a"}), acts=frozenset({None, "b"}), dags=frozenset({"open"}))
    seen = waiting_for(rights, WaitingOfTeams(now(), {None: 3, "b": 2}, [], tasks), 1)
    assert ([task.task_id for task in seen.tasks], seen.total) == (["mine"], 3)


def test_a_file_of_a_team_is_compared_with_what_waits_for_that_team() -> None:
    """None being everybody's: the routes of one say nothing of the tasks of the other."""
    tasks = [waiting_task("open", "shared"), waiting_task("open", "mine", team="a")]
    every = WaitingOfTeams(now(), {None: 3, "a": 2}, [group("shared", 3), group("mine", 2, team="a")], tasks)
    for team, name in ((None, "shared"), ("a", "mine")):
        found = waiting_of_teams(every, {team})
        assert [task.task_id for task in found.tasks] == [name]
        assert (list(found.totals), [each.backend for each in found.groups]) == ([team], [name])


def test_what_has_not_begun_on_backends_of_other_teams_is_left_out() -> None:
    """Where nothing waits, too."""
    given = [NotBegun("shared", None, 4, now()), NotBegun("theirs", "b", 2, now())]
    seen = waiting_for(Rights(teams=frozenset({None})), WaitingOfTeams(now(), {}, [], [], None, given), 9)
    assert [each.backend for each in seen.not_begun] == ["shared"]


def test_what_belongs_to_no_dag_is_named_to_those_who_may_act() -> None:
    """A connection test has the name of a connection."""
    test = replace(waiting_task("", "my_connection"), kind="TestConnection")
    waiting = WaitingOfTeams(now(), {None: 1}, [group("shared", 1)], [test])
    assert waiting_for(Rights(), waiting, 9).tasks == []
    assert waiting_for(Rights(acts=frozenset({None})), waiting, 9).tasks == [test]


def test_who_uses_the_slots_of_another_team_is_not_told() -> None:
    """Nor how many do; and what may not be seen takes no place in the list."""
    tasks = [
        running_task("open", "theirs", team="b"),
        running_task("closed", "secret"),
        running_task("open", "mine", team="a"),
        running_task("open", "late", team="a"),
    ]
    rights = Rights(teams=frozenset({"a", None}), dags=frozenset({"open"}))
    seen = running_for(rights, RunningOfTeams(now(), {"a": 3, "b": 70}, tasks), 1)
    assert (seen.total, [task.task_id for task in seen.tasks]) == (3, ["mine"])
