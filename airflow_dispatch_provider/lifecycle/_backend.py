# SPDX-License-Identifier: Apache-2.0
"""One backend as the machine knows it: its slots, its circuit, and whose trouble it has seen."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from enum import Enum
from hashlib import blake2b

from airflow_dispatch_provider.lifecycle.events import CORDONED, BackendRules, Room
from airflow_dispatch_provider.routing.circuit import Circuit, CircuitState
from airflow_dispatch_provider.routing.model import BackendView
from airflow_dispatch_provider.routing.reasons import Reason

_NO_ROOM = Room(slots=0)


class Stage(Enum):
    """How far jobs get on a backend that fails: what mends one stage says nothing of the next."""

    SEND = 1
    """They cannot be sent."""

    START = 2
    """They are sent, and come to nothing before they begin."""


class Backend:
    """Changed by the machine alone."""

    def __init__(self, name: str, rules: BackendRules, seed: str) -> None:
        """
        :param seed: differs between schedulers, so that they do not try again in step
        """
        self.name = name
        self.rules = rules
        self.room = _NO_ROOM
        self.out = 0
        """Dispatches that are out: each has a slot, or was given ahead."""

        self.given = self.done = 0
        """Dispatches that came out, and those of them that no longer are, since the start."""

        self.ended = 0
        """Those of them that have ended there, since the start: neither taken back, nor let go before they began."""

        self.began = self.returned = self.launch_failures = 0
        """Dispatches, since the start: see ``survey.COUNTS``."""

        self.ahead: dict[int, bool] = {}
        """Dispatches that were given ahead, as long as their engine has not answered, and whether they are still wanted
        there; the others were asked back."""

        self.trying: int | None = None
        """The dispatch with which it is tried after a failure, as long as its engine has not answered."""

        self.ordered = False
        """An operator has cordoned it."""

        self.gone = False
        """No longer configured, or configured otherwise: it is drained, and can still be asked for what it has."""

        self.api_away = False
        """The execution API answers nobody here, and others elsewhere."""

        self.circuit = Circuit(rules.min_delay, rules.max_delay)
        self._seed = seed
        self._stage = Stage.SEND
        self._try_over = 0.0
        self.suspects: dict[Stage, Hashable] = {}
        """The first job that has come to nothing since the last success, by stage."""

        self.blamed: tuple[str, int] | None = None
        """It failed last over a task of this Dag, in this ``handle``."""

    def use(self, rules: BackendRules) -> None:
        self.rules, self.gone = rules, False
        self.circuit = replace(self.circuit, min_delay=rules.min_delay, max_delay=rules.max_delay)

    @property
    def cordoned(self) -> bool:
        return self.rules.cordoned or self.ordered

    @property
    def free(self) -> int:
        """Slots that nothing has; none if more are in use than it has by now."""
        return max(0, min(self.room.slots - self.out, self.room.takes))

    @property
    def used(self) -> int:
        """Slots that are taken."""
        return self.out - len(self.ahead)

    def takes_ahead(self, now: float) -> int:
        """How many it may have ahead, those that it has among them; none while it is tried after a failure."""
        is_open = not self.trouble(now) and self.circuit.state(now) is CircuitState.CLOSED
        return self.room.ahead if is_open and self.room.slots > 0 else 0

    def free_ahead(self, now: float) -> int:
        """How many more it may have ahead."""
        return max(0, self.takes_ahead(now) - sum(self.ahead.values()))

    def keeps(self, dispatch: int) -> bool:
        """Whether it may keep what it was given and has not sent."""
        return not (self.gone or (self.cordoned and dispatch in self.ahead))

    def usable(self, now: float) -> bool:
        """Whether it can be asked for anything."""
        return self.room.unavailable is None and self.circuit.state(now) is not CircuitState.OPEN

    def fails(self, now: float) -> bool:
        """Whether it cannot be used, or nothing has come through since it failed."""
        return not self.usable(now) or self.circuit.state(now) is not CircuitState.CLOSED

    def trouble(self, now: float) -> str:
        """Why it takes no work, in a sentence; empty: it does."""
        if self.gone:
            return "It is no longer configured so: it gets no new work, and ends when it is empty."
        if not self.usable(now):
            return _sentence(self.room.unavailable or self.circuit.error or "It has failed")
        return CORDONED if self.cordoned else ""

    @property
    def retry_at(self) -> float | None:
        """When it is tried again, by its circuit and by its engine, in monotonic seconds; None: neither has failed, or
        says so. In the past: with the next job."""
        by_engine = self.room.retry_at if self.room.unavailable is not None else None
        moments = [at for at in (self.circuit.retry_at, by_engine) if at is not None]
        return max(moments, default=None)

    def fullness(self, now: float) -> str:
        """Why it takes nothing more now, in a sentence."""
        return self.trouble(now) or f"{self.used} of {self.room.slots} slots are in use."

    def in_short(self, now: float) -> str:
        """Its name, its slots in use, those that there are, and whether it takes no work: ``a 2/2``."""
        state = ""
        if self.gone:
            state = " removed"
        elif not self.usable(now):
            state = " unusable"
        elif self.cordoned:
            state = " cordoned"
        ahead = f" +{len(self.ahead)} ahead" if self.ahead else ""
        return f"{self.name} {self.used}/{self.room.slots}{ahead}{state}"

    def view(self, now: float) -> BackendView:
        """The view of it that a decision has."""
        kinds, closed = self.room.kinds, self.room.closed
        if self.gone:
            return BackendView(0, Reason.UNKNOWN_BACKEND, kinds, closed)
        if not self.usable(now):
            return BackendView(0, Reason.CIRCUIT_OPEN, kinds, closed)
        if self.cordoned:
            return BackendView(0, Reason.CORDONED, kinds, closed)
        free = self.free
        if self.circuit.state(now) is CircuitState.HALF_OPEN:
            free = min(free, 0 if self.trying is not None and now < self._try_over else 1)
        return BackendView(free, None, kinds, closed)

    def launched(self, dispatch: int, now: float) -> None:
        """A job was submitted. After a failure it is the try; one that its engine does not answer, since there is no
        room for its pod, say, keeps the next one waiting no longer than the longest delay."""
        if self.circuit.state(now) is CircuitState.HALF_OPEN:
            self.trying, self._try_over = dispatch, now + self.circuit.max_delay

    def answered(self, dispatch: int) -> None:
        """Its engine has said something of a job that was submitted."""
        self.ahead.pop(dispatch, None)
        if dispatch == self.trying:
            self.trying = None

    def met(self, key: Hashable, stage: Stage, now: float, reason: str) -> bool:
        """A job came to nothing. Its trouble is its own until a different job meets the same, with no success in
        between; returns whether that has opened the circuit."""
        known = self.suspects.setdefault(stage, key)
        if known == key:
            return False
        self._stage = stage
        self.broke(now, reason)
        return True

    def broke(self, now: float, reason: str, stage: Stage | None = None) -> None:
        """It cannot be used, whatever the job."""
        if stage is not None:
            self._stage = stage
        self.blamed = None
        self.circuit = self.circuit.failed(now, reason, self._jitter())

    def worked(self, stage: Stage, now: float) -> bool:
        """A job, or a neutral request, has come through this stage; returns whether that has closed the circuit."""
        self.suspects.pop(Stage.SEND, None)
        if stage is Stage.START:
            self.suspects.pop(Stage.START, None)
        if self.circuit.retry_at is None or (self._stage is Stage.START and stage is Stage.SEND):
            return False
        self.circuit, self.api_away = self.circuit.succeeded(now), False
        return True

    def _jitter(self) -> float:
        """From 0 to 1, another at every failure; no random number, so that a story can be told again."""
        text = f"{self._seed}\0{self.name}\0{self.circuit.failures}".encode(errors="surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=6).digest(), "big") / 2**48


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
