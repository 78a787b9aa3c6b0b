# SPDX-License-Identifier: Apache-2.0
"""The one record of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any, NamedTuple

from airflow_dispatch_provider.lifecycle.states import State
from airflow_dispatch_provider.lifecycle.story import Story
from airflow_dispatch_provider.routing.model import EXECUTE_TASK, Held, TaskRef


class Waits(str, Enum):
    """Why a job that is held is not even decided about; ``words`` says it to a person."""

    words: str

    def __new__(cls, value: str, words: str) -> Waits:
        member = str.__new__(cls, value)
        member._value_ = value
        member.words = words
        return member

    API = "waits_api", "the execution API answers nobody, so nothing could begin"
    LAUNCH = "waits_launch", "it could not be launched and waits for its next try"
    EARLIER = "waits_earlier", "an earlier dispatch of the same task has not ended yet"
    ROWS = "waits_rows", "this scheduler was silent for a while and asks the database what is still its own"

    __str__ = str.__str__


class Paused(NamedTuple):
    """A backend that is not to have a job for a while, though others may give it theirs."""

    backend: str
    times: int
    """How often it has given the job back, or refused it, with no success in between."""

    until: float
    """Monotonic seconds."""

    refused: bool = False
    """It could not take the job, or the job came to nothing there: the other targets come first."""


class _Rare:
    """Values that few jobs ever have: attributes of the class until then, so that the others cost less."""

    failures: int = 0
    """How often it came to nothing before it began, for reasons of its own."""

    due: float = inf
    """Monotonic seconds of the next ``Due``."""

    ended_at: float = 0.0
    """UNCLEAR: when its dispatch ended."""

    looked_at: float = 0.0
    """UNCLEAR: when the database was last asked."""

    silent_since: float = 0.0
    """UNCLEAR: since when each answer of the database has shown its process as silent; 0: the last one has not."""

    may_have_begun: bool = False
    """UNCLEAR: it has not ended well, and its engine could not tell."""

    ended_well: bool = False
    """UNCLEAR: its engine said SUCCESS, and it was queued here."""

    seen_well: bool = False
    """UNCLEAR: its engine has seen it begin and end well."""

    offered_well: bool = False
    """UNCLEAR: its engine said SUCCESS; it was offered, so that this may be the first half of a task that deferred."""

    mishap: bool = False
    """UNCLEAR: its backend has lost it, and is no suspect for that."""

    nothing_ran: bool = False
    """UNCLEAR: see ``Ended``."""

    trouble: str = ""
    """The last trouble, for people."""

    told: str = ""
    """The last reason for waiting that its user was told."""

    value: Any = None
    """UNCLEAR: its engine's own event value."""

    orphan: bool = False
    """UNCLEAR: offered as running, and no backend has it."""

    asked: bool = False
    """RETURNING: the database has been asked to set it back."""

    candidates: tuple[str, ...] = ()
    """ADOPTING: the backends to be asked after this one."""

    stepped_back: int = 0
    """HELD: when it has let others go first for a try, as a number of ``handle``."""

    paused: tuple[Paused, ...] = ()
    """Backends that have given it back or refused it, with no success in between."""

    revoked: int = 0
    """REVOKING: how often its engine was told to stop it."""

    dead: bool = False
    """REVOKING: Airflow is done with it."""

    withdrawn: int = 0
    """The last dispatch that was asked back."""

    recalled: int = -1
    """The last dispatch that an operator has recalled."""


@dataclass(eq=False)
class Job(_Rare, Held):
    """One workload in our care. Only the transitions change it."""

    queue: str | None = None
    dag_id: str = ""
    seed: str = ""
    """See ``TaskRef``. Such an object in every job would be one more for the garbage collector to go through."""

    lanes: Mapping[str, str] = field(default_factory=dict)
    subject: Any = None
    """Opaque; see ``Machine.subject``."""

    story: Story = ()
    state: State = State.NEW
    moment: int = 0
    """When it came into this state, as a number of ``handle``."""

    backend: str | None = None
    """Where it is out, or was last."""

    dispatch: int = 0
    """The number under which it is out, or was last; 0: it never was."""

    waits: Waits | None = None
    over: bool = False
    """The database has called it over once."""

    began: bool = False
    """Its engine has seen it begin."""

    runs: bool = False
    """The database had it as RUNNING when it was offered, or since."""

    @property
    def ref(self) -> TaskRef:
        """As routing sees it."""
        return TaskRef(self.queue, self.dag_id, self.seed, self.kind, self.executor)

    @property
    def is_task(self) -> bool:
        """Whether it has a row in the database; callbacks and connection tests have none of this kind."""
        return self.kind == EXECUTE_TASK

    def forget_end(self) -> None:
        """It is out once more: nothing of how it ended before belongs to how it will end."""
        self.ended_at = self.looked_at = self.silent_since = 0.0
        self.may_have_begun = self.ended_well = self.seen_well = self.offered_well = False
        self.mishap = self.nothing_ran = False
        self.value = None

    def to_the_back(self, sequence: int) -> None:
        """Let its equals go first."""
        self.sequence = sequence
        self.__post_init__()
