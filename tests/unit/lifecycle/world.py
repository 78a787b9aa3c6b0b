# SPDX-License-Identifier: Apache-2.0
"""A small world around real machines: two schedulers, two tasks, two backends, a database, an execution API.

The database and Airflow's scheduler are modelled after Airflow 3.3: what ``process_executor_events`` makes of an
event, what adoption offers, which rows ``ti_run`` lets begin. A world is a value: it can be copied, compared, and asked
for every step that may come next.
"""

from __future__ import annotations

from unit.lifecycle.frozen import FOREVER, LONG, REFS, Wrong, freeze, orders
from unit.lifecycle.small_scheduler import KNOWS, LOOKING, NOBODY, ROOMS, SETTINGS, SURVIVES, Copy, Scheduler

from airflow_dispatch_provider.lifecycle import actions
from airflow_dispatch_provider.lifecycle.events import (
    EXECUTION_API,
    Adopted,
    Began,
    Broken,
    Ended,
    Offered,
    Queued,
    Recall,
    Recovered,
    Rejected,
    Returned,
    Revoke,
    Rows,
    Sent,
    Tick,
    Unknown,
)
from airflow_dispatch_provider.lifecycle.machine import Machine
from airflow_dispatch_provider.lifecycle.states import Outcome, Row, RowState


class World:
    """Mutable; every step is a method, and ``steps`` says which are possible."""

    def __init__(self, crashes=2, reconciled=False, tasks=2, rooms=ROOMS, done=0, **faults):
        """
        :param done: how many of the tasks have succeeded already, which leaves room for more faults
        :param reconciled: the database is asked about every job from time to time
        :param faults: how often each fault may happen: ``loss``, ``reject``, ``give_back``, ``api``, ``stuck``,
            ``outage``, ``defer``, ``die``, ``recall``, ``mistaken`` (a scheduler is taken for dead and lives on)
        """
        self.empty = freeze(Machine(LOOKING if reconciled else SETTINGS), 0.0)
        self.rooms = rooms
        self.rows = [["D" if j < done else "S", NOBODY] for j in range(tasks)]
        self.queued = [0] * tasks
        """How often each was queued: stands for ``queued_dttm``."""

        self.evidence = [None] * tasks
        self.schedulers = [Scheduler(0, self.empty), Scheduler(1, self.empty)]
        self.copies = []
        self.budget = {"crash": crashes, **faults}

    def copy(self):
        other = World.__new__(World)
        other.empty, other.rooms = self.empty, self.rooms
        other.rows = [list(row) for row in self.rows]
        other.queued, other.evidence = list(self.queued), list(self.evidence)
        other.schedulers = [scheduler.copy() for scheduler in self.schedulers]
        other.copies, other.budget = list(self.copies), dict(self.budget)
        return other

    # What may happen

    def steps(self):
        """Every step that is possible now: (whether it is a fault, method, arguments)."""
        for s, scheduler in enumerate(self.schedulers):
            yield from self._steps_of_scheduler(s, scheduler)
        for c, copy in enumerate(self.copies):
            yield from self._steps_of_copy(c, copy)

    def _steps_of_scheduler(self, s, scheduler):
        if scheduler.frozen.waits:
            yield False, "tick", (s,)
        for j, (state, by) in enumerate(self.rows):
            if state == "S" and scheduler.alive_as != NOBODY:
                yield False, "queue", (s, j)
                if self._may("crash"):
                    yield True, "queue_and_crash", (s, j)
            if state == "Q" and by == s and scheduler.alive_as != NOBODY:
                if self._may("stuck"):
                    yield True, "stuck", (s, j)
                if self._may("recall"):
                    yield True, "recall", (s, j)
                if "loss" in self.budget and all(copy.job != j for copy in self.copies):
                    yield False, "lost", (s, j)
            if state == "R" and by == s and "die" in self.budget and not self._runs(j):
                yield False, "purge", (s, j)
        if any(by == "dead" and state in "QR" for state, by in self.rows) and scheduler.alive_as != NOBODY:
            yield False, "adopt", (s,)
        if scheduler.questions:
            yield False, "answer", (s,)
        if scheduler.adoptions and scheduler.adoptions[0][0] != scheduler.down:
            yield False, "answer_adoption", (s,)
        if self._may("crash") and not scheduler.frozen.empty:
            yield True, "crash", (s, True)
            if any(copy.owner == s and self.evidence[copy.job] for copy in self.copies):
                yield True, "crash", (s, False)
        if scheduler.alive_as == NOBODY:
            yield False, "end", (s,)
        elif self._may("mistaken"):
            yield True, "mistaken", (s,)
        if scheduler.down:
            yield False, "recover", (s,)
        else:
            if self._may("outage"):
                yield True, "break_", (s, "a")
            if self._may("mute"):
                yield True, "mute", (s, "a")

    def _steps_of_copy(self, c, copy):
        if copy.phase in ("done", "refused", "vain"):
            yield False, "poll", (c,)
        elif copy.phase == "unsent":
            yield False, "send", (c,)
            for fault in ("reject", "give_back"):
                if self._may(fault):
                    yield True, fault, (c,)
        elif copy.phase == "sent":
            yield False, "begin", (c,)
            if self._may("api"):
                yield True, "begin_without_api", (c,)
            if self._may("vain") and KNOWS[copy.backend] and self.rows[copy.job][0] == "Q":
                yield True, "begin_in_vain", (c,)
        elif copy.phase == "running":
            yield False, "finish", (c,)
            if self._may("defer"):
                yield True, "defer", (c,)
            if self._may("die") and copy.owner == NOBODY:
                yield True, "die", (c,)
        if copy.phase != "running" and copy.phase != "unsent" and self._may("loss"):
            yield True, "lose", (c,)

    def _may(self, fault):
        return self.budget.get(fault, 0) > 0

    def _spend(self, fault):
        self.budget[fault] -= 1

    # Airflow's scheduler

    def queue(self, s, j):
        self.rows[j] = ["Q", s]
        self.queued[j] += 1
        self._tell(s, Queued(j, REFS[j], 1, "workload"))

    def queue_and_crash(self, s, j):
        """Before the heartbeat."""
        self.rows[j] = ["Q", s]
        self.queued[j] += 1
        self.crash(s, True)

    def stuck(self, s, j):
        """It was queued for longer than ``task_queued_timeout``."""
        self._spend("stuck")
        self.lost(s, j)

    def lost(self, s, j, dead=False):
        """The same, which is all that helps a task that its engine has lost."""
        self._hear(s, Revoke(j, dead=dead))
        self.rows[j] = ["S", NOBODY]
        self._tell(s)

    def recall(self, s, j):
        """An operator takes back what has not begun."""
        self._spend("recall")
        self._hear(s, Recall(j, sent=True))
        self._tell(s)

    def purge(self, s, j):
        """It has sent no heartbeat for ``task_instance_heartbeat_timeout``; it is tried once more."""
        self.lost(s, j, dead=True)

    def adopt(self, s):
        for j, (state, by) in enumerate(self.rows):
            if by == "dead" and state in "QR":
                self.rows[j][1] = s
                self._hear(s, Offered(j, REFS[j], state == "R", self.evidence[j], ("b", "a")))
        self._tell(s)

    def tick(self, s):
        """A heartbeat, after a time that is longer than any delay if nothing is due yet."""
        self._tell(s, passed=0.0 if self.schedulers[s].frozen.due else LONG)

    def crash(self, s, logged):
        """It ends at once, and maybe before its last rows of the event log were written."""
        self._spend("crash")
        for copy in self.copies:
            if copy.owner == s and not logged:
                self.evidence[copy.job] = None
        self.end(s)

    def end(self, s):
        """The process ends, and a new one is started; what it had in memory is gone."""
        for row in self.rows:
            if row[1] == s and row[0] in "QR":
                row[1] = "dead"
        kept = []
        for copy in self.copies:
            if copy.owner != s:
                kept.append(copy)
            elif copy.phase in SURVIVES[copy.backend]:
                kept.append(copy._replace(owner=NOBODY, number=0))
        self.copies = kept
        self.schedulers[s] = Scheduler(s, self.empty)

    def mistaken(self, s):
        """It is taken for dead by the others, and goes on until it notices."""
        self._spend("mistaken")
        for row in self.rows:
            if row[1] == s and row[0] in "QR":
                row[1] = "dead"
        self.schedulers[s].alive_as = NOBODY

    # The clerk

    def answer(self, s):
        (question, queued), *later = self.schedulers[s].questions
        self.schedulers[s].questions = tuple(later)
        rows = {}
        for j in question.keys:
            mine = self.schedulers[s].alive_as
            put_back = isinstance(question, actions.PutBack) and self.queued[j] == queued[j]
            anew = isinstance(question, actions.Restart | actions.Unstart) and self._row(j, mine).silent
            if (put_back and self.rows[j] == ["Q", mine]) or (anew and self.rows[j] == ["R", mine]):
                self.rows[j] = ["S", NOBODY]
            rows[j] = self._row(j, mine)
        self._tell(s, Rows(question.asked, rows))

    def _runs(self, j):
        return any(copy.job == j and copy.phase == "running" for copy in self.copies)

    def _row(self, j, s):
        state, by = self.rows[j]
        known = {"Q": RowState.QUEUED, "R": RowState.RUNNING}.get(state, RowState.OVER)
        return Row(known, by == s and s != NOBODY, 0.0 if self._runs(j) else FOREVER)

    # Engines

    def send(self, c):
        copy = self.copies[c] = self.copies[c]._replace(phase="sent")
        self._tell(copy.owner, Sent(copy.number))

    def begin(self, c):
        """The execution API lets one run of a try begin."""
        copy = self.copies[c]
        if self.rows[copy.job][0] != "Q":
            self._end(c, "refused")
            return
        self.rows[copy.job][0] = "R"
        self.copies[c] = copy._replace(phase="running")
        if copy.owner != NOBODY and KNOWS[copy.backend]:
            self._tell(copy.owner, Began(copy.number))

    def _end(self, c, phase):
        if self.copies[c].owner == NOBODY:
            del self.copies[c]
        else:
            self.copies[c] = self.copies[c]._replace(phase=phase)

    def begin_without_api(self, c):
        self._spend("api")
        copy = self.copies[c]
        self._end(c, "refused")
        if copy.owner != NOBODY and KNOWS[copy.backend]:
            self._hear(copy.owner, Broken(EXECUTION_API, "away", copy.backend))

    def begin_in_vain(self, c):
        """The execution API dies before it has answered."""
        self._spend("vain")
        self.rows[self.copies[c].job][0] = "R"
        self._end(c, "vain")

    def finish(self, c):
        job = self.copies[c].job
        if self.rows[job][0] != "R":
            raise Wrong("a run completes whose try is not running")
        self.rows[job] = ["D", NOBODY]
        self._end(c, "done")

    def defer(self, c):
        """The task waits for a trigger, which has fired at once: the same try is scheduled again."""
        self._spend("defer")
        self.rows[self.copies[c].job] = ["S", NOBODY]
        self._end(c, "done")

    def die(self, c):
        """A process dies with the machine of its scheduler."""
        self._spend("die")
        del self.copies[c]

    def lose(self, c):
        self._spend("loss")
        del self.copies[c]

    def reject(self, c):
        self._spend("reject")
        copy = self.copies.pop(c)
        self._tell(copy.owner, Rejected(copy.number, "too large"))

    def give_back(self, c):
        self._spend("give_back")
        copy = self.copies.pop(c)
        self._tell(copy.owner, Returned(copy.number, "away"))

    def poll(self, c):
        """The scheduler hears of an end."""
        copy = self.copies.pop(c)
        knows = KNOWS[copy.backend]
        if copy.phase == "done":
            self._tell(copy.owner, Ended(copy.number, Outcome.SUCCESS, True if knows else None))
        elif copy.phase == "vain":
            self._tell(copy.owner, Ended(copy.number, Outcome.FAILED, None, "away", nothing_ran=True))
        else:
            self._tell(copy.owner, Ended(copy.number, Outcome.FAILED, False if knows else None, "refused"))

    def answer_adoption(self, s):
        self._tell(s, self._answer_adoption(s))

    def _answer_adoption(self, s):
        (backend, found), *later = self.schedulers[s].adoptions
        self.schedulers[s].adoptions = tuple(later)
        for c, copy in enumerate(self.copies):
            if (copy.job, copy.backend, copy.owner) == (found.key, backend, NOBODY):
                self.copies[c] = copy._replace(owner=s, number=found.number)
                return Adopted(found.number, copy.phase == "running" and KNOWS[backend])
        return Unknown(found.number)

    def break_(self, s, backend):
        self._spend("outage")
        self.schedulers[s].down = backend
        self._tell(s, Broken(backend, "away"))

    def mute(self, s, backend):
        """It says nothing of what a dead scheduler left there, and is well otherwise."""
        self._spend("mute")
        self.schedulers[s].down = backend

    def recover(self, s):
        backend, self.schedulers[s].down = self.schedulers[s].down, ""
        self._tell(s, Recovered(backend))

    # Doing what a machine wants done

    def _tell(self, s, *events, passed=0.0):
        """News of engines and of the clerk are taken in by a heartbeat."""
        self._hear(s, *events, Tick(self.rooms), passed=passed)

    def _hear(self, s, *events, passed=0.0):
        pending = list(events)
        while pending:
            wanted = self.schedulers[s].hear(passed, pending)
            pending, passed = [], 0.0
            for action in wanted:
                handler = getattr(self, f"_do_{type(action).__name__.lower()}", None)
                if handler is not None:
                    pending += handler(s, action) or ()

    def _do_submit(self, s, action):
        for each in action.dispatches:
            self.evidence[each.key] = action.backend
            phase = "sent" if action.backend == "b" else "unsent"
            self.copies.append(Copy(s, each.number, each.key, action.backend, phase))
            if phase == "sent":
                yield Sent(each.number)

    def _do_withdraw(self, s, action):
        back = [
            c for c in self.copies if c.owner == s and c.number in action.dispatches and c.phase == "unsent"
        ]
        self.copies = [c for c in self.copies if c not in back]
        return [Returned(copy.number) for copy in back]

    def _do_revoke(self, s, action):
        scheduler = self.schedulers[s]
        scheduler.adoptions = tuple((b, f) for b, f in scheduler.adoptions if f.number != action.dispatch)
        for c, copy in enumerate(self.copies):
            if copy.owner != s or copy.number != action.dispatch:
                continue
            if copy.phase == "running":
                raise Wrong("a task is killed that runs")
            if copy.phase in ("unsent", "sent"):
                self.copies[c] = copy._replace(phase="refused")

    def _do_adopt(self, s, action):
        """Answered at once, unless the backend cannot be reached."""
        self.schedulers[s].adoptions += tuple((action.backend, found) for found in action.found)
        while (asked := self.schedulers[s].adoptions) and asked[0][0] != self.schedulers[s].down:
            yield self._answer_adoption(s)

    def _do_lookup(self, s, action):
        """The oldest question is lost where too many wait."""
        self.schedulers[s].questions = (*self.schedulers[s].questions[-1:], (action, tuple(self.queued)))

    def _do_askapi(self, s, action):
        yield Recovered(EXECUTION_API)

    _do_putback = _do_restart = _do_unstart = _do_lookup

    def _do_emit(self, s, action):
        """See ``process_executor_events``."""
        state, by = self.rows[action.key]
        scheduler = self.schedulers[s]
        if scheduler.alive_as == NOBODY:
            return
        if state == "R" and by == s and "die" in self.budget and not self._runs(action.key):
            self.rows[action.key] = ["S", NOBODY]  # it has died, and is tried once more
            return
        if state in "SQR" and by == s and scheduler.frozen.moments[action.key] == FOREVER:
            raise Wrong(f"Airflow fails a task that is {state}: {action}")

    # As a value

    @property
    def done(self):
        """Everything has succeeded, and nothing is left behind."""
        over = all(state == "D" for state, _ in self.rows)
        return over and not self.copies and all(scheduler.frozen.empty for scheduler in self.schedulers)

    def key(self):
        """Equal for worlds in which the same may happen from now on; the two schedulers are alike."""
        self.drop_inert()
        return min(self._key_as(jobs) for jobs in orders([self._kind_of(0), self._kind_of(1)]))

    def _kind_of(self, j):
        state, by = self.rows[j]
        return state, by if by in (NOBODY, "dead") else 0, self.evidence[j] or ""

    def _key_as(self, jobs):
        parts = [scheduler.as_value(jobs, self.queued) for scheduler in self.schedulers]
        return min(self._key(parts, names, jobs) for names in orders([hash(part) for part in parts]))

    def drop_inert(self):
        """Facts that can change nothing any more."""
        over = [state == "D" for state, _ in self.rows]
        self.copies = [c for c in self.copies if c.owner != NOBODY or not over[c.job]]
        for j, (_, by) in enumerate(self.rows):
            if over[j] or not (self._may("crash") or self._may("mistaken") or by == "dead"):
                self.evidence[j] = None

    def _key(self, parts, names, jobs):
        def name(s):
            return names[s] if s in (0, 1) else s

        copies = sorted((name(c.owner), self._rank(c), jobs[c.job], c.backend, c.phase) for c in self.copies)
        rows = tuple((self.rows[j][0], name(self.rows[j][1]), self.evidence[j]) for j in jobs)
        return hash((rows, tuple(copies), tuple(self.budget.values()), parts[names[0]], parts[names[1]]))

    def _rank(self, copy):
        """Numbers of dispatches count only as far as they can still matter."""
        return 0 if copy.owner == NOBODY else self.schedulers[copy.owner].frozen.ranks.get(copy.number, 0)
