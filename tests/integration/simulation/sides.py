# SPDX-License-Identifier: Apache-2.0
"""Scripts are run on two sides, Airflow and the model of it, which have the same methods and answers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

GO, REFUSED = "go", "refused"


class Seen(NamedTuple):
    """A task, as its row says. What waits for another try is scheduled for it first, as the scheduler would."""

    state: str
    owner: str | None
    """Name of the scheduler that has queued it."""

    attempt: int
    """From 1."""

    id: int
    """How many ids it had before this one."""


class Side(Protocol):
    """One task, which is scheduled; schedulers ``a`` and ``b``, which live; processes, which are numbers."""

    is_model: bool
    one_id_per_try: bool
    """As from Airflow 3.4 on: the next try has another id as soon as it can be scheduled, and not before."""

    takes: bool
    """The executors take over what they are offered."""

    revokes: bool
    """The executors can take back what is queued."""

    holds: bool
    """The executors have the task."""

    def see(self) -> Seen: ...

    # Schedulers

    def queue(self, scheduler: str = "a") -> None:
        """The critical section: the task is scheduled."""

    def event(self, scheduler: str, state: str, attempt: int = 1) -> None:
        """Its executor tells of that try, and the scheduler takes it in."""

    def fall_silent(self, scheduler: str) -> None:
        """Its last heartbeat is too long ago."""

    def end(self, scheduler: str) -> None:
        """As one that was asked to."""

    def beat(self, scheduler: str) -> None:
        """Its job sends a heartbeat."""

    def adopt(self, scheduler: str) -> bool:
        """It looks for what dead schedulers had; True: its executor was offered the task."""

    def wait_queued(self, scheduler: str) -> bool:
        """The task has been queued for too long by now, and the scheduler looks for such; True: its executor was
        asked to revoke it."""

    def lose_heartbeat(self, scheduler: str) -> None:
        """The last heartbeat of the task's process is too long ago, and the scheduler looks for such, and takes in
        what its executor says then."""

    # Processes; each knows the id that the task had when it was started

    def start(self, process: int, id: int | None = None) -> str:
        """:param id: None: that of the task now"""

    def heartbeat(self, process: int) -> bool:
        """False: it has to end."""

    def succeed(self, process: int) -> bool:
        """False: it was refused."""

    def defer(self, process: int) -> bool:
        """False: it was refused."""

    # Others

    def trigger(self) -> None:
        """It happens, for which the task has deferred."""

    def clear(self) -> None:
        """A user has it run anew."""

    def put_back(self, scheduler: str) -> None:
        """Its clerk does, with what was queued."""

    def unstart(self, scheduler: str) -> None:
        """Its clerk does, with what runs and is silent."""

    def restart(self, scheduler: str) -> None:
        """Its clerk does, with what runs and is silent."""
