# SPDX-License-Identifier: Apache-2.0
"""The thread that makes all API calls of one executor, and what the scheduler's thread may ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.engines.kubernetes._search import NOT_DONE, tidy
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes.adoption import Adoption, Wanted
from airflow_dispatch_provider.engines.kubernetes.creator import Creator, Factory
from airflow_dispatch_provider.engines.kubernetes.ends import Database, Ends
from airflow_dispatch_provider.engines.kubernetes.finisher import Finisher
from airflow_dispatch_provider.engines.kubernetes.lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes.model import Ended, Job, Report
from airflow_dispatch_provider.engines.kubernetes.outbox import Outbox
from airflow_dispatch_provider.engines.kubernetes.plugins import PluginLoop
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker
from airflow_dispatch_provider.engines.kubernetes.watcher import Watcher
from airflow_dispatch_provider.masking import describe

T = TypeVar("T")

log = logging.getLogger(__name__)

HUNG_AFTER = 10.0
"""Seconds after which a server that has answered nothing counts as hung."""

STUCK_AFTER = 30.0
"""Seconds after which the thread itself counts as hung, in code that a user has given it."""

BEAT = 1.0
"""Seconds between two signs of life of the thread."""

JOIN_TIMEOUT = 2.0
"""Seconds that ``stop`` waits for the thread."""


@dataclass(frozen=True)
class Policy:
    """The user's options for pods."""

    namespace: str
    """Of pods that name no other."""

    watched: tuple[str | None, ...]
    """Namespaces to watch; None: all of them."""

    label: str
    """This scheduler's value of the label ``airflow-worker``."""

    limit: int = 32
    """Requests of one kind at a time."""

    launch_retries: int = 10
    """How often a pod that alone cannot be created is tried again."""

    fatal_reasons: tuple[str, ...] = ()
    delete: bool = True
    delete_failed: bool = False
    delete_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def named(self) -> tuple[str, ...]:
        """The namespaces to watch; none where all of them are."""
        return () if None in self.watched else tuple(filter(None, self.watched))

    @property
    def labels(self) -> str:
        """Selects this scheduler's pods that are not done."""
        return f"airflow-worker={self.label},{NOT_DONE}"


class Controller:
    """All public methods are for the scheduler's thread; ``stop`` alone waits, for a bounded time."""

    def __init__(
        self,
        name: str,
        api: PodApi,
        factory: Factory,
        policy: Policy,
        database: Database,
        renew: Callable[[Workload], Workload],
    ) -> None:
        """
        :param name: of the cluster, for the log and for threads
        :param renew: see ``Creator``
        """
        self.name = name
        self._api, self._policy = api, policy
        self._outbox = Outbox()
        self._reports: deque[Report] = deque()
        self._finisher = _finisher(api, policy)
        self._tracker = Tracker(
            self._report, self._finisher.finish, self._finisher.remove, policy.fatal_reasons
        )
        self._ends = Ends(database, self._reports.append, self._tracker.has_started)
        self._watchers = {
            namespace: Watcher(api, self._tracker, namespace, policy.labels) for namespace in policy.watched
        }
        self._lanes = Lanes(policy.named, self._unwatched)
        self._creator = self._new_creator(factory, renew)
        self._adoption = Adoption(
            api, policy.watched, policy.label, self._tracker, self._finisher.label, self._report
        )
        self._loop = PluginLoop()
        self._runs: dict[Callable[[], Coroutine[Any, Any, None]], asyncio.Task[None]] = {}
        self._stopping = False
        self._alive = time.monotonic()
        self._thread = self._new_thread()

    def _new_creator(self, factory: Factory, renew: Callable[[Workload], Workload]) -> Creator:
        policy = self._policy
        return Creator(
            self._api,
            self._outbox,
            factory,
            self._tracker,
            self._reports.append,
            self._lanes,
            limit=policy.limit,
            own={policy.namespace, *policy.watched},
            launch_retries=policy.launch_retries,
            home=policy.watched[0],
            renew=renew,
        )

    def start(self) -> None:
        self._thread.start()

    # News

    @property
    def problem(self) -> str | None:
        """Why the cluster cannot be used at the moment; None: it can."""
        troubles = (self._creator.trouble.problem, self._lanes.problem, self._unwatched(None))
        return self._hung() or next(filter(None, troubles), None)

    def _hung(self) -> str | None:
        now = time.monotonic()
        if not self._stopping and now - self._alive > STUCK_AFTER:
            return f"The thread that calls the API server of {self.name} is stuck since {now - self._alive:.0f} s."
        if (silent := self._silent(now)) > HUNG_AFTER:
            return f"The API server of {self.name} has not answered for {silent:.0f} s."
        return None

    def _silent(self, now: float) -> float:
        busy_since = self._creator.busy_since
        return now - busy_since if busy_since is not None else 0.0

    def _unwatched(self, namespace: str | None) -> str | None:
        """Why nobody sees now what becomes of pods there."""
        watcher = self._watchers.get(namespace) or self._watchers.get(None)
        return watcher.trouble.problem if watcher is not None else None

    @property
    def full(self) -> str | None:
        """Why there is no room for more pods at the moment; None: there is."""
        return self._lanes.full

    @property
    def unsent(self) -> int:
        """Jobs that the server is not known to have, without those that wait for another try."""
        return len(self._outbox) + self._creator.sending

    def drain(self) -> list[Report]:
        """The reports since the last call."""
        self._revive()
        return [self._reports.popleft() for _ in range(len(self._reports))]

    # Orders

    def submit(self, jobs: Iterable[Job], after: float = 0.0) -> None:
        """
        :param after: seconds to wait before they are sent
        """
        if after:
            for job in jobs:
                self._outbox.put_off(job, time.monotonic() + after)
        else:
            self._outbox.put(jobs)
        self._soon(self._creator.wake)

    def withdraw(self, key: WorkloadKey) -> bool:
        """Take one back; False where it may be with the server."""
        return self._outbox.withdraw(key) is not None

    def withdraw_all(self) -> list[Job]:
        """Take back all that is certainly not with the server."""
        return self._outbox.withdraw_all()

    def revoke(self, pod: PodName) -> None:
        """Remove that pod, as soon as it can be done, and report nothing more of it."""
        self._soon(lambda: self._tracker.revoke(pod))

    def revoke_unseen(self, key: WorkloadKey, labels: str) -> None:
        """The same where its name is not known: what is being created for the key, and what the labels select."""
        self._start(self._revoke_unseen(key, labels))

    def tidy(self, living: Collection[str]) -> None:
        """Finish what succeeded under schedulers that do not live any more.

        :param living: values of the label ``airflow-worker`` that are in use
        """
        self._start(tidy(self._api, self._policy.watched, living, self._finisher.finish))

    def adopt(self, wanted: Wanted) -> None:
        """Take over other schedulers' pods as soon as the server answers: each is reported as created, and a task
        that has none as vanished."""
        self._start(self._adoption.adopt(wanted))

    def search(self, wanted: Wanted) -> None:
        """Find out which tasks have a pod here; reported as ``Searched``."""
        self._start(self._adoption.search(wanted))

    def look_up_again(self, ended: Ended) -> None:
        """Report it once more, with what the database has then."""
        self._soon(lambda: self._ends.put_again(ended))

    def put_back(self, ended: Ended) -> None:
        """Have Airflow schedule it again; reported as ``PutBack``."""
        self._soon(lambda: self._ends.put_back(ended))

    def stop(self, timeout: float) -> list[Job]:
        """Clean up completed pods, for at most ``timeout`` seconds, and end the thread; returns what was not sent."""
        unsent = self.withdraw_all()
        with contextlib.suppress(Exception):
            self._start(self._flush()).result(timeout)
        self._stopping = True
        self._soon(self._loop.stop)
        self._thread.join(JOIN_TIMEOUT)
        return unsent

    # The thread

    def _soon(self, call: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(call)

    def _start(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"dispatch-kubernetes {self.name}", daemon=True)

    def _revive(self) -> None:
        """A thread that has died is replaced: its loop still has all that was under way."""
        if self._thread.ident is not None and not self._thread.is_alive() and not self._stopping:
            log.error("The thread that calls the API server of %s has died, and is started again.", self.name)
            self._thread = self._new_thread()
            self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._stopping:
            self._keep_running()
            try:
                self._loop.run_forever()
            except BaseException as error:  # of a user's code: asyncio lets SystemExit through
                log.error("Something has tried to end the thread of %s: %s", self.name, describe(error))
        for task in self._runs.values():
            task.cancel()
        self._loop.run_until_complete(self._close())
        self._loop.close()

    def _keep_running(self) -> None:
        """Start what goes on for ever, where it does not."""
        watchers = self._watchers.values()
        for run in (
            self._live,
            self._ends.run,
            self._ends.look_now_and_then,
            self._creator.run,
            self._finisher.run,
            *(watcher.run for watcher in watchers),
            *(watcher.look_now_and_then for watcher in watchers),
        ):
            self._start_once(run)

    async def _live(self) -> None:
        """Give signs of life, see that all goes on, and ask a silent server for one."""
        while True:
            self._alive = time.monotonic()
            await asyncio.sleep(min(BEAT, HUNG_AFTER / 4))
            self._keep_running()
            if self._silent(time.monotonic()) > HUNG_AFTER / 2:
                self._start_once(self._creator.ping)

    def _start_once(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._runs.get(call)
        if task is not None and not task.done():
            return
        if task is not None and not task.cancelled() and (error := task.exception()):
            log.error("Something in the thread of %s has failed, and goes on: %s", self.name, describe(error))
        self._runs[call] = self._loop.create_task(call())

    def _report(self, report: Report) -> None:
        if isinstance(report, Ended):
            self._ends.put(report)
        else:
            self._reports.append(report)

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._api.close()
        self._loop.end_processes()

    async def _flush(self) -> None:
        while self._finisher.unfinished or self._creator.sending or self._ends.open:
            await asyncio.sleep(0.02)

    async def _revoke_unseen(self, key: WorkloadKey, labels: str) -> None:
        pod = self._tracker.pod_of(key)
        if pod is not None:
            self._tracker.revoke(pod)
            return
        for found in await self._adoption.select(labels):
            self._finisher.remove(found)


def _finisher(api: PodApi, policy: Policy) -> Finisher:
    return Finisher(
        api,
        policy.limit,
        delete=policy.delete,
        delete_failed=policy.delete_failed,
        delete_options=policy.delete_options,
    )
