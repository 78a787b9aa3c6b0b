# SPDX-License-Identifier: Apache-2.0
"""The pods of dispatches, and what it means for a dispatch when its pod is seen, or is not there any more. Pure.

A pod belongs to one dispatch. It carries that dispatch's mark, by which late news of another pod that had the same name
is told apart. Times are monotonic seconds, and given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from airflow_dispatch_provider.engines.engine import Event
from airflow_dispatch_provider.engines.kubernetes._seen import Kind, Observation, PodName
from airflow_dispatch_provider.lifecycle.events import Ended, Sent, Stalled
from airflow_dispatch_provider.lifecycle.states import Outcome

OVER_GRACE = 600.0
"""At least, in seconds."""

_REMEMBERED = 10_000
"""Names of pods that are removed should they turn up."""

_TOLD = 8
"""Reasons for not starting that are remembered of a pod."""


class Finish(NamedTuple):
    """Clean up a pod whose task has ended: delete it, or mark it as done, as the options say."""

    pod: PodName
    failed: bool
    lives_on: bool
    """Other containers of it still run, which nobody needs."""


class Remove(NamedTuple):
    """Delete a pod that is not wanted any more."""

    pod: PodName
    even_started: bool = False
    """False: one whose container has started since is left to end by itself. Its task may have been queued again before
    the pod could be deleted, and then the Execution API lets this very pod run it, and refuses the next one."""


Order = Finish | Remove


class Seen(NamedTuple):
    """A pod as a list, or an event of a watch, shows it."""

    pod: PodName
    observation: Observation
    mark: str | None = None
    """Of the dispatch that it was made for; None: it has none."""

    version: str | None = None
    """``resourceVersion``."""

    gone: bool = False
    """It is not in the watch any more."""

    never_started: bool = False
    """It is certain that the task's container did not start, and will not."""

    stuck: str | None = None
    """Why it is still pending."""


@dataclass(slots=True, eq=False)
class _Pod:
    dispatch: int
    mark: str | None
    sure: bool = False
    """Whether it exists for certain: the server has said so."""

    started: bool = False
    stuck: str | None = None
    told: tuple[str, ...] = ()
    """All that it was ever stuck for: Kubernetes goes to and fro between two words for the same."""

    version: str | None = None
    labelled: bool = True
    """Whether lists and watches by this scheduler's label have it."""

    revoked: bool = False


class Pods:
    """Of one engine; changed by its machine alone."""

    def __init__(self, info: str | None = None, over_grace: float = OVER_GRACE) -> None:
        """
        :param info: what ``Sent`` says for the outside world
        :param over_grace: seconds for which the pod of a task that is over in Airflow may go on, once its container
            has started: it may be storing the task's log
        """
        self._over_grace = over_grace
        self.events: list[Event] = []
        self.orders: list[Order] = []
        self.info = info
        self._pods: dict[PodName, _Pod] = {}
        self._names: dict[int, PodName] = {}
        self._unwanted: dict[PodName, _Pod] = {}
        """May turn up though they were given up."""

        self._ends: dict[int, float] = {}
        """When the pod of each dispatch is removed that is over in Airflow."""

    def __len__(self) -> int:
        return len(self._pods)

    def name_of(self, dispatch: int) -> PodName | None:
        return self._names.get(dispatch)

    def is_there(self, dispatch: int) -> bool:
        """Whether its pod is known to exist."""
        name = self._names.get(dispatch)
        return name is not None and self._pods[name].sure

    # Before there is one

    def expect(self, dispatch: int, name: PodName, mark: str | None) -> bool:
        """Its pod is about to be asked for: news of it may come before the answer.

        :return: False where another dispatch has a pod of that name
        """
        known = self._pods.setdefault(name, _Pod(dispatch, mark))
        if known.dispatch != dispatch:
            return False
        self._names[dispatch] = name
        return True

    def confirm(self, name: PodName) -> None:
        """The server has it. What was revoked meanwhile is removed now."""
        known = self._pods.get(name)
        if known is None or known.sure:
            return
        known.sure = True
        if known.revoked:
            self._remove(name)
        else:
            self.events.append(Sent(known.dispatch, self.info))

    def drop(self, dispatch: int, doubtful: bool) -> None:
        """It was not created.

        :param doubtful: it may turn up all the same, and is removed then
        """
        name = self._names.get(dispatch)
        if name is None:
            return
        if doubtful:
            self._unwanted[name] = self._pods[name]
            if len(self._unwanted) > _REMEMBERED:
                del self._unwanted[next(iter(self._unwanted))]
        self._forget(name)

    # Taking back

    def revoke(self, dispatch: int) -> None:
        """Remove it as soon as it is there; its end is told when it is gone."""
        name = self._names.get(dispatch)
        if name is None or self._pods[name].revoked:
            return
        known = self._pods[name]
        known.revoked = True
        if known.sure:
            self._remove(name)

    def _remove(self, name: PodName) -> None:
        self.orders.append(Remove(name, even_started=self._pods[name].started))

    def let_go(self, dispatch: int, now: float) -> None:
        """Its task is over in Airflow: what has started may still be storing its log."""
        name = self._names.get(dispatch)
        if name is None:
            return
        if self._pods[name].started:
            self._ends.setdefault(dispatch, now + self._over_grace)
        else:
            self.revoke(dispatch)

    def keep(self, dispatch: int) -> None:
        """It may be what runs its task after all: it is let go no longer."""
        self._ends.pop(dispatch, None)

    @property
    def next_end(self) -> float:
        """When the next of them is to be removed; infinity where there is none."""
        return min(self._ends.values(), default=inf)

    def end_overdue(self, now: float) -> None:
        """Remove what was let go, and has had its time."""
        for dispatch in [dispatch for dispatch, due in self._ends.items() if due <= now]:
            del self._ends[dispatch]
            if (name := self._names.get(dispatch)) is not None:
                self._pods[name].revoked = True
                self._remove(name)

    # Adoption

    def adopt(self, dispatch: int, name: PodName, mark: str | None, started: bool) -> bool:
        """It was another scheduler's; False where it is being removed here, or is of a later dispatch of its task: what
        is looked for for long may have been queued again meanwhile."""
        known = self._pods.get(name)
        if known is not None and (known.revoked or known.dispatch > dispatch):
            return False
        if known is not None:
            self._forget(name)
        self._pods[name] = _Pod(dispatch, mark, sure=True, started=started)
        self._names[dispatch] = name
        return True

    def has_no_label(self, name: PodName) -> None:
        """Until it is seen again, lists by this scheduler's label leave it out."""
        if name in self._pods:
            self._pods[name].labelled = False

    # News

    def see(self, seen: Seen) -> int | None:
        """Take note of it; returns the dispatch that it is of, if it is of any."""
        name = seen.pod
        self._turn_up(seen)
        known = self._pods.get(name)
        if known is None or not _same(known.mark, seen.mark):
            return None
        self.confirm(name)
        known.version, known.labelled = seen.version, True
        known.started = known.started or seen.observation.started
        if seen.stuck:
            self._note_stuck(name, known, seen.stuck, seen.observation.kind is Kind.PENDING)
        self._note(name, known, seen)
        return known.dispatch

    def _turn_up(self, seen: Seen) -> None:
        """One that was given up is there after all: it is removed, or followed to its end."""
        unwanted = self._unwanted.get(seen.pod)
        if unwanted is None or seen.gone or not _same(unwanted.mark, seen.mark):
            return
        del self._unwanted[seen.pod]
        if seen.pod not in self._pods:
            unwanted.revoked, unwanted.sure = True, False
            self._pods[seen.pod] = unwanted
            self._names.setdefault(unwanted.dispatch, seen.pod)

    def missing(self, names: Iterable[PodName]) -> None:
        """Those are not in the cluster any more."""
        for name in names:
            known = self._pods.get(name)
            if known is not None:
                self._end(name, known, None, f"Pod {name} is gone, and nobody saw how it ended.")

    def versions(self, namespace: str | None) -> Mapping[PodName, str | None]:
        """Those that a list which is asked for now will have, if they still exist, with the resource version that was
        seen last; None: a watch has not told of it yet."""
        return {
            name: known.version
            for name, known in self._pods.items()
            if known.sure and known.labelled and namespace in (None, name.namespace)
        }

    def _note_stuck(self, name: PodName, known: _Pod, reason: str, is_pending: bool) -> None:
        known.stuck = reason
        if is_pending and reason not in known.told and not known.revoked:
            known.told = (*known.told, reason)[-_TOLD:]
            self.events.append(Stalled(known.dispatch, f"Pod {name}: {reason}"))

    def _note(self, name: PodName, known: _Pod, seen: Seen) -> None:
        """The cases, in the order in which they are looked at:

        1. it has completed: its end is told, and it is cleaned up;
        2. it was deleted, or is gone after it was revoked here: its end is told;
        3. it has left the watch, or another scheduler revoked it: the database knows whose the task is now;
        4. all else is no end.
        """
        kind, failed = seen.observation.kind, seen.observation.kind is Kind.FAILED
        if failed or kind is Kind.SUCCEEDED:
            self._end(name, known, seen, f"Pod {name}: {seen.observation.reason}" if failed else "")
            # What is still pending could start when its task has been launched again.
            lives_on = seen.observation.lives_on or (failed and seen.stuck is not None)
            self.orders.append(Finish(name, failed, lives_on))
        elif kind is Kind.DELETED or (seen.gone and known.revoked):
            self._end(name, known, seen, f"Pod {name}: {seen.observation.reason or 'deleted'}")
        elif kind is Kind.RELEASED or (kind is Kind.REVOKED and not known.revoked):
            self._end(name, known, None, f"Pod {name} is another scheduler's now.")

    def _end(self, name: PodName, known: _Pod, seen: Seen | None, reason: str) -> None:
        """
        :param seen: None: nobody saw it end
        """
        self._forget(name)
        if seen is not None and seen.observation.kind is Kind.SUCCEEDED:
            self.events.append(Ended(known.dispatch, Outcome.SUCCESS))
            return
        if known.revoked:
            reason = (
                f"Pod {name} never started: {known.stuck}" if known.stuck and not known.started else "revoked"
            )
        began = False if seen is not None and seen.never_started and not known.started else None
        self.events.append(Ended(known.dispatch, Outcome.FAILED, began, reason))

    def _forget(self, name: PodName) -> None:
        known = self._pods.pop(name)
        if self._names.get(known.dispatch) == name:
            del self._names[known.dispatch]
        self._ends.pop(known.dispatch, None)


def _same(mark: str | None, other: str | None) -> bool:
    """Pods of before an upgrade have no mark."""
    return mark is None or other is None or mark == other
