# SPDX-License-Identifier: Apache-2.0
"""Reports of the tracker about pods that it is shown, and its requests about them."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_dispatch_provider.engines.kubernetes.model import Created, End, Ended, PodName, Released, Stuck
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker

from .fakes import named, pod


class Log:
    """A tracker and everything that comes out of it."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.finished: list[tuple[str, bool]] = []
        self.removed: list[str] = []
        self.living_on: list[bool] = []
        self.tracker = Tracker(
            self.reports.append,
            self._finish,
            lambda name: self.removed.append(name.name),
            ["ErrImagePull"],
        )

    def _finish(self, name: PodName, failed: bool, lives_on: bool) -> None:
        self.finished.append((name.name, failed))
        self.living_on.append(lives_on)

    @property
    def news(self) -> list[Any]:
        """All reports but those of pods that are there."""
        return [report for report in self.reports if not isinstance(report, Created)]

    def ends(self) -> list[tuple[str, End, bool]]:
        return [(r.key, r.end, r.started) for r in self.reports if isinstance(r, Ended)]


@pytest.fixture
def log() -> Log:
    made = Log()
    made.tracker.expect(named("p"), "task")
    return made


WAITING = {
    "containerStatuses": [{"name": "base", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}]
}


@pytest.mark.parametrize(
    ("event", "seen", "end", "finished"),
    [
        ("MODIFIED", pod("p", "Succeeded"), End.SUCCEEDED, [("p", False)]),
        ("MODIFIED", pod("p", "Failed"), End.FAILED, [("p", True)]),
        # Deleted when it was through already: its end counts.
        ("DELETED", pod("p", "Succeeded", deleted=True), End.SUCCEEDED, [("p", False)]),
        # Nothing is left to be finished of one that somebody has deleted.
        ("DELETED", pod("p", "Running", deleted=True), End.DELETED, []),
        ("DELETED", pod("p", "Pending", deleted=True), End.DELETED, []),
        # The user has named a reason for which it is not to be waited.
        ("MODIFIED", pod("p", "Pending", **WAITING), End.FAILED, [("p", True)]),
    ],
)
def test_an_end_is_reported_once_and_its_pod_is_finished(log, event, seen, end, finished):
    """However often it is seen: in a watch, in a list, and in the event of its deletion."""
    for _ in range(3):
        log.tracker.see(event, seen)
    assert [found for _, found, _ in log.ends()] == [end]
    assert log.finished == finished
    assert len(log.tracker) == 0


@pytest.mark.parametrize(("before", "started"), [("Pending", False), ("Running", True)])
def test_an_end_tells_whether_the_task_had_begun(log, before, started):
    """It decides whether a new pod may cost the task no try."""
    log.tracker.see("MODIFIED", pod("p", before))
    log.tracker.see("MODIFIED", pod("p", "Failed", reason="Evicted"))
    assert log.ends() == [("task", End.FAILED, started)]


def test_a_pod_that_was_confirmed_and_is_not_in_a_list_has_vanished(log):
    """It was deleted while nobody watched."""
    log.tracker.confirm(named("p"))
    log.tracker.missing(log.tracker.sure_pods("airflow"))
    assert log.ends() == [("task", End.VANISHED, False)]


def test_a_pod_that_is_being_created_is_not_missed(log):
    """The list may have been made before it was there."""
    assert log.tracker.sure_pods("airflow") == set()


def test_a_pod_of_another_namespace_is_not_missed(log):
    """Each watcher lists its own."""
    log.tracker.confirm(named("p"))
    assert log.tracker.sure_pods("other") == set()
    assert log.tracker.sure_pods(None) == {named("p")}


def test_a_pod_that_leaves_the_selection_was_taken_over(log):
    """Another scheduler has put its own label on it."""
    log.tracker.see("DELETED", pod("p", "Running"))
    assert log.news == [Released("task", named("p"))]
    assert log.finished == []


def test_why_a_pod_does_not_start_is_told_when_it_changes(log):
    """Once for each reason, not with each of the many events."""
    tell = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no nodes"}]
    for conditions in (tell, tell, []):
        log.tracker.see("MODIFIED", pod("p", "Pending", conditions=conditions))
    assert log.news == [Stuck("task", named("p"), "Unschedulable: no nodes")]


def test_a_revoked_pod_is_removed_and_its_end_is_no_news(log):
    log.tracker.confirm(named("p"))
    log.tracker.revoke(named("p"))
    log.tracker.see("MODIFIED", pod("p", "Failed"))
    assert (log.removed, log.news) == (["p"], [])


@pytest.mark.parametrize("how", ["confirmed", "seen"])
def test_a_pod_that_is_revoked_while_it_is_being_created_is_removed_when_it_is_there(log, how):
    """Until then there may be nothing to be removed."""
    log.tracker.revoke(named("p"))
    assert log.removed == []
    if how == "confirmed":
        log.tracker.confirm(named("p"))
    else:
        log.tracker.see("ADDED", pod("p"))
    assert (log.removed, log.news) == (["p"], [])


def test_pods_that_are_not_known_are_left_alone(log):
    """Those that were finished, or never ours."""
    log.tracker.see("MODIFIED", pod("other", "Succeeded"))
    assert (log.reports, log.finished, log.removed) == ([], [], [])


def test_that_there_is_a_pod_is_reported_once_and_first():
    """By whichever comes first, the answer or the watch; the end of a quick one comes after it."""
    log = Log()
    log.tracker.expect(named("p"), "task")
    log.tracker.see("MODIFIED", pod("p", "Succeeded"))
    log.tracker.confirm(named("p"))
    assert [type(report) for report in log.reports] == [Created, Ended]


def test_an_adopted_pod_is_tracked(log):
    log.tracker.adopt(named("q"), "adopted")
    log.tracker.see("MODIFIED", pod("q", "Succeeded"))
    assert log.ends() == [("adopted", End.SUCCEEDED, True)]


def test_a_pod_whose_task_is_over_has_ended_though_a_sidecar_runs_on(log):
    """Nobody else would end it."""
    container = {
        "name": "base",
        "state": {"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}},
    }
    seen = pod("p", "Running")
    seen["status"]["containerStatuses"] = [container]
    log.tracker.see("MODIFIED", seen)
    assert (log.ends(), log.finished, log.living_on) == (
        [("task", End.SUCCEEDED, True)],
        [("p", False)],
        [True],
    )


def test_the_version_that_was_seen_last_is_known(log):
    """It is compared with that of a list."""
    log.tracker.confirm(named("p"))
    assert log.tracker.versions("airflow") == {named("p"): None}
    log.tracker.see("MODIFIED", pod("p", "Running"))
    assert log.tracker.versions("airflow") == {named("p"): "1"}


def test_whether_the_container_of_a_task_has_started_is_known(log):
    assert not log.tracker.has_started("task")
    log.tracker.see("MODIFIED", pod("p", "Running"))
    assert log.tracker.has_started("task")
    assert not log.tracker.has_started("another")
