# SPDX-License-Identifier: Apache-2.0
"""The status of one scheduler's executor as a document: plain values for the table ``dispatch_status``."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_dispatch_provider import __version__
from airflow_dispatch_provider.lifecycle.job import Job, Waits
from airflow_dispatch_provider.lifecycle.overview import (
    NOT_BEGUN,
    BackendFigures,
    Line,
    Overview,
    given_at,
    has_begun,
    longest_out,
    users,
)
from airflow_dispatch_provider.masking import masked
from airflow_dispatch_provider.routing.decide import Fullness
from airflow_dispatch_provider.routing.reasons import Reason

VERSION = 1
"""Of the document; of one of another version a reader reads only ``hostname`` and ``package``."""

FIRST = 50
"""Tasks of each backend that are listed, of those that wait for it, and of those that it has."""

_LINES = 200
"""Lists of targets, those with the most tasks, for which it is said how many wait."""

_DAGS = 20
"""Dags of each backend that are listed, of those that use its slots."""

_MINUTES = 30
_PACE = 60.0
"""Seconds over which a pace is measured."""

NEXT = "next", "the next heartbeat of its scheduler decides about it"
"""Word and sentence for what does not wait for anything else."""


@dataclass(frozen=True)
class Facts:
    """Facts about an executor that do not change while it runs."""

    hostname: str
    executor: str
    team: str
    """Empty: of no team."""

    executors: Callable[[], Mapping[str, str]]
    """Names of the executors of its backends, by backend."""

    file: Callable[[], tuple[str | None, str | None]]
    """The path of ``config_file``, and why the file on disk is not in use."""


class Pace:
    """How many dispatches of a backend came out, and how many ended there, by minute."""

    def __init__(self) -> None:
        self._minutes: deque[list[int]] = deque(maxlen=_MINUTES)
        self._marks: deque[tuple[float, int, int]] = deque()
        self._last = 0, 0

    def add(self, now: float, at: float, given: int, ended: int) -> None:
        """
        :param now: monotonic seconds
        :param at: seconds since 1970
        :param given: since the start of the backend, which may have been replaced
        :param ended: there, since the same
        """
        if given < self._last[0] or ended < self._last[1]:
            self._last = 0, 0
            self._marks.clear()
        before = self._last
        self._last = given, ended
        minute = int(at // 60) * 60
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append([minute, 0, 0])
        self._minutes[-1][1] += given - before[0]
        self._minutes[-1][2] += ended - before[1]
        self._marks.append((now, given, ended))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _PACE:
            self._marks.popleft()

    @property
    def minutes(self) -> list[list[int]]:
        """For each minute its beginning, what came out, what ended; the oldest first."""
        return [list(each) for each in self._minutes]

    @property
    def per_minute(self) -> tuple[int, int]:
        """Dispatches that came out and that ended, over the last minute or so. Of less than a minute it is known what
        has happened by now, and nothing is made of it."""
        if len(self._marks) < 2:
            return 0, 0
        first, last = self._marks[0], self._marks[-1]
        seconds = max(_PACE, last[0] - first[0])
        return round((last[1] - first[1]) * _PACE / seconds), round((last[2] - first[2]) * _PACE / seconds)


class Report:
    """Makes the documents of one executor; remembers of the one before what paces and durations need."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._paces: dict[str, Pace] = {}
        self._since: dict[str, tuple[str, float]] = {}
        """The state of each backend, and since when it is so."""

    def document(self, overview: Overview, clock: float, ahead: float) -> dict[str, Any]:
        """
        :param clock: monotonic seconds
        :param ahead: seconds from that to seconds since 1970
        """

        def wall(at: float) -> float:
            return at + ahead

        lines, apart, out = list(overview.lines(FIRST)), overview.apart, overview.out()
        file, refused = self._facts.file()
        return {
            "version": VERSION,
            "package": __version__,
            "hostname": self._facts.hostname,
            "executor": self._facts.executor,
            "heartbeat": wall(overview.now),
            "file": file,
            "refused": refused,
            "api_trouble": _masked(overview.api_trouble),
            "held": overview.held,
            "takes": overview.takes,
            "backends": self._backends(overview, lines, out, clock, ahead),
            "lines": _lines(lines),
            "groups": list(_groups(lines, apart, overview, wall)),
            "waiting": list(_waiting(lines, apart, overview, wall)),
            "returning": dict(overview.returning()),
            "running": [_running(job, name, wall) for name in out for job in longest_out(out[name], FIRST)],
        }

    def _backends(
        self,
        overview: Overview,
        lines: Iterable[Line],
        out: Mapping[str, list[Job]],
        clock: float,
        ahead: float,
    ) -> list[dict[str, Any]]:
        now = clock + ahead
        executors, oldest = self._facts.executors(), _oldest(lines)
        entries = []
        for each in overview.backends:
            there = out.get(each.name, ())
            pace = self._paces.setdefault(each.name, Pace())
            pace.add(clock, now, each.given, each.ended)
            state, (submitted, ended) = _state(each), pace.per_minute
            waits = overview.not_begun_since(there)
            entries.append(
                {
                    "name": each.name,
                    "executor": executors.get(each.name, ""),
                    "state": state,
                    "cordoned": each.is_cordoned or each.is_gone,
                    "since": self._known_since(each.name, state, now),
                    "slots": each.slots,
                    "used": each.used,
                    "ahead": each.ahead,
                    "free": each.free,
                    "held": each.held,
                    "oldest": oldest[each.name] + ahead if each.name in oldest else None,
                    "submitted_per_minute": submitted,
                    "ended_per_minute": ended,
                    "trouble": _masked(_trouble(each)),
                    "next_try": None if each.retry_at is None else each.retry_at + ahead,
                    "not_begun": sum(job.state in NOT_BEGUN for job in there),
                    "not_begun_since": None if waits is None else waits + ahead,
                    "hint": masked(each.hint),
                    "dags": dict(users(there).most_common(_DAGS)),
                    "minutes": pace.minutes,
                }
            )
        return entries

    def _known_since(self, name: str, state: str, now: float) -> float:
        if self._since.get(name, ("", 0.0))[0] != state:
            self._since[name] = state, now
        return self._since[name][1]


def _oldest(lines: Iterable[Line]) -> dict[str, float]:
    """By backend: since when the first waits that has it as first choice, in monotonic seconds."""
    oldest: dict[str, float] = {}
    for line in lines:
        name = line.targets[0].backend
        oldest[name] = min(oldest.get(name, line.since), line.since)
    return oldest


def _state(figures: BackendFigures) -> str:
    """See ``operate.model.BackendState``; whether one that is cordoned drains is known from its order."""
    if figures.is_gone:
        return "removed"
    if figures.is_failing:
        return "failing"
    return "cordoned" if figures.is_cordoned else "open"


def _trouble(figures: BackendFigures) -> str | None:
    parts = [f"{lane}: {why}" for lane, why in figures.closed.items()]
    return " ".join(filter(None, (figures.trouble, "; ".join(parts)))) or None


def _masked(text: str | None) -> str | None:
    return None if text is None else masked(text)


def _said(reason: Reason | Waits | None) -> tuple[str, str]:
    return NEXT if reason is None else (reason.value, reason.words)


def _full(found: Fullness) -> dict[str, Any]:
    """Which targets are full; how full they are stands with the backends."""
    full = [[name, masked(why)] for name, why in found.full]
    return {"full": full, "left_out": list(found.left_out)}


def _groups(
    lines: Iterable[Line], apart: Iterable[Job], overview: Overview, wall: Callable[[float], float]
) -> Iterable[dict[str, Any]]:
    """By first target and reason."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(backend: str, job: Job, detail: str, count: int, since: float) -> None:
        word, words = _said(overview.reason(job))
        text, found = masked(detail), overview.fullness(job)
        group = groups.setdefault(
            (backend, word, text, found),
            {
                "backend": backend,
                "reason": word,
                "words": words,
                "detail": text or None,
                **_full(found),
                "held": 0,
                "oldest": since,
            },
        )
        group["held"] += count
        group["oldest"] = min(group["oldest"], since)

    for line in lines:
        add(line.targets[0].backend, line.first[0], line.detail, line.held, line.since)
    for job in apart:
        add(job.backend or "", job, job.trouble, 1, job.since)
    return [{**group, "oldest": wall(group["oldest"])} for group in groups.values()]


def _lines(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """How many wait for which targets, whatever their route."""
    held: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        held[tuple(target.backend for target in line.targets)] += line.held
    return [{"targets": list(targets), "held": number} for targets, number in held.most_common(_LINES)]


def _waiting(
    lines: Iterable[Line], apart: Iterable[Job], overview: Overview, wall: Callable[[float], float]
) -> Iterable[dict[str, Any]]:
    """The first of each backend, in the order in which they go."""
    by_backend: dict[str, list[tuple[Job, Line]]] = {}
    for line in lines:
        by_backend.setdefault(line.targets[0].backend, []).extend((job, line) for job in line.first)
    for entries in by_backend.values():
        entries.sort(key=lambda entry: entry[0].order)
        for position, (job, line) in enumerate(entries[:FIRST], start=1):
            targets = [target.backend for target in line.targets]
            yield _job(job, overview, line.detail, line.route, targets, position, wall)
    for job in list(apart)[:FIRST]:
        targets = [job.backend] if job.backend else []
        yield _job(job, overview, job.trouble, "", targets, 0, wall)


def _job(
    job: Job,
    overview: Overview,
    detail: str,
    route: str,
    targets: list[str],
    position: int,
    wall: Callable[[float], float],
) -> dict[str, Any]:
    word, words = _said(overview.reason(job))
    return {
        **_name_of(job),
        "route": route,
        "targets": targets,
        "reason": word,
        "words": words,
        "detail": masked(detail) or None,
        **_full(overview.fullness(job)),
        "since": wall(job.since),
        "position": position,
    }


def _running(job: Job, backend: str, wall: Callable[[float], float]) -> dict[str, Any]:
    return {
        **_name_of(job),
        "backend": backend,
        "has_begun": has_begun(job),
        "since": _there_since(job, wall),
    }


def _there_since(job: Job, wall: Callable[[float], float]) -> float:
    """Of a task that ran when its scheduler had died: since it began, as its row said when it was taken over."""
    subject: Any = job.subject
    began = getattr(subject, "start_date", None) if job.runs else None
    return wall(given_at(job)) if began is None else float(began.timestamp())


def _name_of(job: Job) -> dict[str, Any]:
    subject: Any = job.subject
    return {
        "dag_id": getattr(subject, "dag_id", job.dag_id),
        "task_id": getattr(subject, "task_id", ""),
        "run_id": getattr(subject, "run_id", ""),
        "map_index": getattr(subject, "map_index", -1),
        "try_number": getattr(subject, "try_number", 0),
        "kind": job.kind,
        "queue": job.queue,
    }
