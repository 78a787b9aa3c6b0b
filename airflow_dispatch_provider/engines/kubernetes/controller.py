# SPDX-License-Identifier: Apache-2.0
"""The thread that makes all API calls of one executor, and what the scheduler's thread may ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.engines.kubernetes import adoption
from airflow_dispatch_provider.engines.kubernetes.creator import Creator, Factory
from airflow_dispatch_provider.engines.kubernetes.ends import Ends, Rows
from airflow_dispatch_provider.engines.kubernetes.finisher import Finisher
from airflow_dispatch_provider.engines.kubernetes.model import Ended, Job, PodName, Report
from airflow_dispatch_provider.engines.kubernetes.outbox import Outbox
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker
from airflow_dispatch_provider.engines.kubernetes.watcher import Watcher

T = TypeVar("T")
LookUp = Callable[[Sequence[WorkloadKey]], Rows]

HUNG_AFTER = 10.0
"""Seconds after which a server that has answered no request to create a pod counts as hung."""

JOIN_TIMEOUT = 2.0
"""Seconds that ``stop`` waits for the thread."""


@dataclass(frozen=True)
class Policy:
    """The user's options for pods."""

    namespace: str
    """Of pods that name no other."""

    watched: tuple[str | None, ...]
    """Namespaces to watch; None: all of them."""

    labels: str
    """Selects this scheduler's pods that are not done."""

    limit: int = 32
    """Requests of one kind at a time."""

    fatal_reasons: tuple[str, ...] = ()
    delete: bool = True
    delete_failed: bool = False
    delete_options: Mapping[str, Any] = field(default_factory=dict)


class Controller:
    """All public methods are for the scheduler's thread; ``stop`` alone waits, for a bounded time."""

    def __init__(self, name: str, api: PodApi, factory: Factory, policy: Policy, look_up: LookUp) -> None:
        """
        :param name: of the cluster, for the log and for threads
        :param look_up: see ``ends``
        """
        self.name = name
        self._api, self._policy = api, policy
        self._outbox = Outbox()
        self._reports: deque[Report] = deque()
        self._ends = Ends(look_up, self._reports.append)
        self._finisher = Finisher(
            api,
            policy.limit,
            delete=policy.delete,
            delete_failed=policy.delete_failed,
            delete_options=policy.delete_options,
        )
        self._tracker = Tracker(
            self._report, self._finisher.finish, self._finisher.remove, policy.fatal_reasons
        )
        own = {policy.namespace, *policy.watched}
        self._creator = Creator(
            api, self._outbox, factory, self._tracker, self._reports.append, policy.limit, own
        )
        self._watchers = [
            Watcher(api, self._tracker, namespace, policy.labels) for namespace in policy.watched
        ]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"dispatch-kubernetes {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # News

    @property
    def problem(self) -> str | None:
        """Why the cluster cannot be used at the moment; None: it can."""
        busy_since = self._creator.busy_since
        silent = time.monotonic() - busy_since if busy_since is not None else 0.0
        if silent > HUNG_AFTER:
            return f"The API server of {self.name} has not answered for {silent:.0f} s."
        troubles = (self._creator.trouble, *(watcher.trouble for watcher in self._watchers))
        return next((problem for trouble in troubles if (problem := trouble.problem)), None)

    @property
    def full(self) -> str | None:
        """Why there is no room for more pods at the moment; None: there is."""
        return self._creator.full.problem

    @property
    def unsent(self) -> int:
        """Jobs that the server is not known to have."""
        return len(self._outbox) + self._creator.sending

    def drain(self) -> list[Report]:
        """The reports since the last call."""
        return [self._reports.popleft() for _ in range(len(self._reports))]

    # Orders

    def submit(self, jobs: Iterable[Job]) -> None:
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
        self._start(adoption.tidy(self._api, self._policy.watched, living, self._finisher.finish))

    def adopt(self, workers: Sequence[str], label: str, wanted: Mapping[WorkloadKey, str]) -> Future[Any]:
        """Take over other schedulers' pods; the future has the keys of those that are there.

        :param workers: values of the label ``airflow-worker`` of those schedulers
        :param label: this scheduler's
        :param wanted: the ids of task instances, by key
        """
        return self._start(self._adopt(workers, label, wanted))

    def adopt_when_possible(
        self, workers: Sequence[str], label: str, wanted: Mapping[WorkloadKey, str]
    ) -> None:
        """The same, whenever the server answers; a task that has no pod then is reported as ended."""
        call = partial(self._adopt, workers, label, wanted)
        self._start(adoption.adopt_when_possible(call, wanted, self._report))

    def stop(self, timeout: float) -> list[Job]:
        """Clean up completed pods, for at most ``timeout`` seconds, and end the thread; returns what was not sent."""
        unsent = self.withdraw_all()
        with contextlib.suppress(Exception):
            self._start(self._flush()).result(timeout)
        self._soon(self._loop.stop)
        self._thread.join(JOIN_TIMEOUT)
        return unsent

    # The thread

    def _soon(self, call: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(call)

    def _start(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runs = (
            self._ends.run(),
            self._creator.run(),
            self._finisher.run(),
            *(watcher.run() for watcher in self._watchers),
        )
        tasks = [self._loop.create_task(run) for run in runs]
        try:
            self._loop.run_forever()
        finally:
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(self._close())
            self._loop.close()

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

    async def _adopt(
        self, workers: Sequence[str], label: str, wanted: Mapping[WorkloadKey, str]
    ) -> set[WorkloadKey]:
        return await adoption.adopt(
            self._api, self._policy.watched, workers, label, wanted, self._tracker, self._finisher.label
        )

    async def _flush(self) -> None:
        while self._finisher.unfinished or self._creator.sending or self._ends.open:
            await asyncio.sleep(0.02)

    async def _revoke_unseen(self, key: WorkloadKey, labels: str) -> None:
        pod = self._tracker.pod_of(key)
        if pod is not None:
            self._tracker.revoke(pod)
            return
        for found in await adoption.select(self._api, self._policy.watched, labels=labels):
            self._finisher.remove(found)
