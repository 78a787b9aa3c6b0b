# SPDX-License-Identifier: Apache-2.0
"""The thread that makes all API calls of one engine: it does the steps and orders of a machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

from airflow_dispatch_provider.bridge.patience import overtime
from airflow_dispatch_provider.engines.engine import Event, Found, Job, Measured
from airflow_dispatch_provider.engines.kubernetes import status
from airflow_dispatch_provider.engines.kubernetes._creating import Factory, Maker, Request
from airflow_dispatch_provider.engines.kubernetes._lanes import Lanes
from airflow_dispatch_provider.engines.kubernetes._machine import Machine
from airflow_dispatch_provider.engines.kubernetes._options import KubernetesOptions
from airflow_dispatch_provider.engines.kubernetes._pods import OVER_GRACE, Finish, Pods
from airflow_dispatch_provider.engines.kubernetes._search import NOT_DONE, Owned, Search, tidy
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes._steps import AskNamespace, AskServer, Create, Step, Wait
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict
from airflow_dispatch_provider.engines.kubernetes.finisher import Finisher
from airflow_dispatch_provider.engines.kubernetes.judgement import WAITS
from airflow_dispatch_provider.engines.kubernetes.manifest import InvalidTask
from airflow_dispatch_provider.engines.kubernetes.plugins import PluginLoop
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi
from airflow_dispatch_provider.engines.kubernetes.watcher import Watcher
from airflow_dispatch_provider.engines.kubernetes.witness import Witness
from airflow_dispatch_provider.lifecycle.events import Ended, Rejected, Returned, Sent
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

HUNG_AFTER = 10.0
"""Seconds after which a server that has answered nothing counts as hung."""

STUCK_AFTER = 30.0
"""Seconds after which the thread itself counts as hung, in code that a user has given it."""

BEAT = 1.0
"""Seconds between two signs of life of the thread."""

LAST_CALLS = 2.0
"""Seconds that ``stop`` gives the thread to end."""


FLUSH = 10.0
"""Seconds that ``stop`` lets completed pods be cleaned up, at most."""

_CUT_OFF = Answer(Verdict.TROUBLE, "its request was cut off")
_SETTLES = (Sent, Ended, Returned, Rejected)


class Driver:
    """All public methods are for the scheduler's thread; ``stop`` alone waits, and until its deadline."""

    def __init__(
        self,
        name: str,
        api: PodApi,
        factory: Factory,
        options: KubernetesOptions,
        label: str,
        info: str,
        renew: Callable[[Any], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param name: of the backend
        :param label: this scheduler's value of the label ``airflow-worker``
        :param info: see ``Pods``
        :param renew: see ``Maker``
        """
        self._name, self._api, self._options, self._clock = name, api, options, clock
        own = {options.namespace, *options.watched}
        self._maker = Maker(api, factory, own, renew)
        self._witness = Witness(api, factory.plain, options.watched[0], own)
        self._finisher = _finisher(api, options)
        self._search = Search(api, options.watched, label)
        labels = f"airflow-worker={label},{NOT_DONE}"
        self._watchers = {place: Watcher(api, self, place, labels) for place in options.watched}
        lanes = Lanes(options.named, self._unwatched, random.random)
        self._machine = Machine(
            name, lanes, Pods(info, overtime(OVER_GRACE)), options.max_unsent, options.limit, random.random
        )
        self._lock = threading.Lock()
        self._requests: dict[int, Request] = {}
        self._nonce = uuid4().hex
        self._said: dict[str, str] = {}
        self._work = asyncio.Event()
        self._loop = PluginLoop()
        self._asked: dict[asyncio.Task[None], float] = {}
        self._runs: dict[Callable[[], Coroutine[Any, Any, None]], asyncio.Task[None]] = {}
        self._stopping = False
        self._alive = self._clock()
        self._thread = self._new_thread()

    def __repr__(self) -> str:
        """Asked in a signal handler, too, which may have interrupted whoever has the lock."""
        if not self._lock.acquire(timeout=0.1):
            return "busy"
        try:
            return repr(self._machine)
        finally:
            self._lock.release()

    def start(self) -> None:
        self._thread.start()

    @contextmanager
    def machine(self, wake: bool = False) -> Iterator[Machine]:
        """The machine, for the calling thread alone. The driver's own holds the lock only while it computes.

        :param wake: there may be something new to do
        """
        with self._lock:
            yield self._machine
        if wake:
            self._soon(self._turn)

    @property
    def problem(self) -> str | None:
        """Why the server cannot be used, beyond what the machine knows; None: it can."""
        now = self._clock()
        if not self._stopping and now - self._alive > STUCK_AFTER:
            return f"The thread that calls the API server is stuck since {now - self._alive:.0f} s."
        if (silent := self._silent(now)) > HUNG_AFTER:
            return f"The API server has not answered for {silent:.0f} s."
        return self._unwatched(None)

    def _silent(self, now: float) -> float:
        asked = min(tuple(self._asked.values()), default=None)
        return now - max(asked, self._api.answered) if asked is not None else 0.0

    def _unwatched(self, namespace: str | None) -> str | None:
        """Why nobody sees now what becomes of pods there."""
        watcher = self._watchers.get(namespace) or self._watchers.get(None)
        return watcher.trouble.problem if watcher is not None else None

    # Orders

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._requests[job.dispatch] = Request(job.key, job.workload, f"{self._nonce}-{job.dispatch}")
        with self.machine(wake=True) as machine:
            machine.submit((job.dispatch, job.key) for job in jobs)

    def withdraw(self, dispatches: Collection[int]) -> set[int]:
        """Those of them that are certainly not with the server."""
        with self._lock:
            taken = self._machine.withdraw(dispatches)
            for dispatch in taken:
                del self._requests[dispatch]
        return taken

    def take_events(self) -> list[Event]:
        """The news since the last call."""
        with self._lock:
            events = self._machine.take_events()
            for event in events:
                if isinstance(event, _SETTLES):
                    self._requests.pop(event.dispatch, None)
        return events

    def take_measured(self) -> Measured:
        return self._api.tally.take()

    def adopt(self, found: Sequence[Found]) -> None:
        """Look for the pods of these; answered by events."""
        with self._lock:
            new = set(self._machine.seek(each.dispatch for each in found))
        if new:
            self._start(self._adopt([each for each in found if each.dispatch in new]))

    def tidy(self, living: Collection[str]) -> None:
        """Finish what succeeded under schedulers that do not live any more.

        :param living: values of the label ``airflow-worker`` that are in use
        """
        self._start(tidy(self._api, self._options.watched, living, self._finisher.finish))

    def revive(self) -> None:
        """A thread that has died is replaced: its loop still has all that was under way."""
        if self._thread.ident is not None and not self._thread.is_alive() and not self._stopping:
            log.error(
                "Backend %r: the thread that calls the API server has died, and is started again.", self._name
            )
            self._thread = self._new_thread()
            self._thread.start()

    def stop(self, deadline: float) -> set[int]:
        """Clean up completed pods until then, and end the thread; returns the dispatches that were not sent.

        :param deadline: monotonic seconds
        """
        with self._lock:
            unsent = self._machine.withdraw_all()
        flush = self._start(self._flush())
        with contextlib.suppress(Exception):
            flush.result(max(0.0, min(FLUSH, deadline - self._clock())))
        self._stopping = True
        self._soon(self._loop.stop)
        self._thread.join(LAST_CALLS)
        return unsent

    # The thread

    def _soon(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(call)

    def _start(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=f"dispatch-kubernetes {self._name}", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._stopping:
            self._keep_running()
            try:
                self._loop.run_forever()
            except BaseException as error:  # of a user's code: asyncio lets SystemExit through
                log.error(
                    "Backend %r: something has tried to end its thread: %s", self._name, describe(error)
                )
        for task in self._runs.values():
            task.cancel()
        self._loop.run_until_complete(self._close())
        self._loop.close()

    def _keep_running(self) -> None:
        """Start what goes on for ever, where it does not."""
        watchers = self._watchers.values()
        for run in (
            self._live,
            self._send,
            self._finisher.run,
            *(watcher.run for watcher in watchers),
            *(watcher.look_now_and_then for watcher in watchers),
        ):
            self._start_once(run)

    def _start_once(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._runs.get(call)
        if task is not None and not task.done():
            return
        if task is not None and not task.cancelled() and (error := task.exception()):
            log.error(
                "Backend %r: something has failed in its thread, and goes on: %s", self._name, describe(error)
            )
        self._runs[call] = self._loop.create_task(call())

    async def _live(self) -> None:
        """Give signs of life, see that all goes on, and ask a silent server for one."""
        while True:
            self._alive = self._clock()
            await asyncio.sleep(min(BEAT, HUNG_AFTER / 4))
            self._keep_running()
            if self._silent(self._clock()) > HUNG_AFTER / 2:
                self._start_once(self._ping)

    async def _ping(self) -> None:
        await self._witness.server()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._api.close()
        self._loop.end_processes()

    async def _flush(self) -> None:
        while self._finisher.unfinished or self._asked:
            await asyncio.sleep(0.02)

    # Steps

    async def _send(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            self._work.clear()
            with self._lock:
                step = self._machine.next(self._clock())
                request = self._requests[step.dispatch] if isinstance(step, Create) else None
            if isinstance(step, Wait):
                await self._wait(step.until)
            else:
                task = asyncio.create_task(self._do(step, request))
                self._asked[task] = self._clock()
                task.add_done_callback(self._done)

    async def _wait(self, until: float) -> None:
        self._turn_orders()
        pause = None if until == math.inf else max(0.0, until - self._clock())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._work.wait(), pause)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._asked[task]
        if not task.cancelled() and (error := task.exception()):
            log.error("Backend %r: a step has failed: %s", self._name, describe(error))
        self._turn()

    async def _do(self, step: Step, request: Request | None) -> None:
        """
        :param request: of the dispatch to create a pod for; a watch may tell of that at any moment, after which it is
            not kept any more
        """
        match step:
            case Create(dispatch) if request is not None:
                await self._create(dispatch, request)
            case AskNamespace(namespace):
                answer = _CUT_OFF
                try:
                    answer = await self._witness.ask(namespace)
                finally:
                    with self._lock:
                        self._machine.namespace_answered(namespace, answer, self._clock())
            case AskServer():
                trouble: Answer | None = _CUT_OFF
                try:
                    trouble = await self._witness.server()
                finally:
                    with self._lock:
                        self._machine.server_answered(trouble, self._clock())

    async def _create(self, dispatch: int, request: Request) -> None:
        try:
            self._maker.build(request, self._clock())
        except BaseException as error:
            reason = str(error) if isinstance(error, InvalidTask) else describe(error)
            with self._lock:
                self._machine.invalid(dispatch, reason, self._clock())
            if not isinstance(error, Exception):
                raise
        else:
            await self._ask(dispatch, request)

    async def _ask(self, dispatch: int, request: Request) -> None:
        with self._lock:
            may = self._machine.built(dispatch, request.pod, request.mark, self._clock())
        if not may:
            return
        answer, neutral = replace(_CUT_OFF, scope=Scope.JOB), None
        try:
            answer = await self._maker.ask(request)
            if answer.verdict in WAITS and answer.scope is Scope.UNKNOWN:
                neutral = await self._witness.ask(request.pod.namespace)
            elif answer.verdict is Verdict.DONE and request.manifest:
                self._witness.has_created(request.manifest)
        except BaseException:
            request.doubtful = True
            raise
        finally:
            with self._lock:
                now, doubtful = self._clock(), request.doubtful
                self._machine.answered(dispatch, answer, now, doubtful=doubtful, neutral=neutral)

    def _turn(self) -> None:
        """Something has changed: do what is to be done, and say what is to be said."""
        self._turn_orders()
        self._work.set()

    def _turn_orders(self) -> None:
        with self._lock:
            orders, troubles = self._machine.take_orders(), self._troubles()
        for order in orders:
            if isinstance(order, Finish):
                self._finisher.finish(*order)
            else:
                self._finisher.remove(*order)
        if troubles.keys() != self._said.keys():
            self._say(troubles)

    def _troubles(self) -> dict[str, str]:
        own = {"": self._machine.trouble} if self._machine.trouble else {}
        return {**self._machine.lanes.closed(), **own}

    def _say(self, troubles: Mapping[str, str]) -> None:
        """Once when trouble begins, and once when it is over."""
        for place in troubles.keys() - self._said.keys():
            where = f"namespace {place}" if place else "the API server"
            log.warning("Backend %r: no pods can be created, %s: %s", self._name, where, troubles[place])
        for place in self._said.keys() - troubles.keys():
            where = f"namespace {place}" if place else "the API server"
            log.info("Backend %r: pods can be created again, %s.", self._name, where)
        self._said = dict(troubles)

    # What watchers tell, see ``watcher.Informed``

    def sure_pods(self, namespace: str | None) -> Collection[PodName]:
        return set(self.versions(namespace))

    def versions(self, namespace: str | None) -> Mapping[PodName, str | None]:
        with self._lock:
            return self._machine.pods.versions(namespace)

    def see(self, event_type: str, manifest: Mapping[str, Any]) -> None:
        seen = status.see(event_type, manifest, self._options.fatal_reasons)
        with self._lock:
            self._machine.see(seen)
        self._turn_orders()

    def missing(self, pods: Iterable[PodName]) -> None:
        with self._lock:
            self._machine.pods.missing(pods)

    # Adoption

    async def _adopt(self, found: Sequence[Found]) -> None:
        missing = await self._search.find(found, self._own)
        with self._lock:
            self._machine.absent(each.dispatch for each in missing)

    def _own(self, owned: Owned) -> None:
        """An end that came before the new label is not told by any later event."""
        found, manifest, unlabelled = owned
        seen = status.see("MODIFIED", manifest, self._options.fatal_reasons)
        with self._lock:
            self._machine.found(found.dispatch, seen, found.runs, self._clock())
            self._machine.see(seen)
            if unlabelled:
                self._machine.pods.has_no_label(seen.pod)
        if unlabelled:
            self._finisher.label(seen.pod, unlabelled)
        self._turn()


def _finisher(api: PodApi, options: KubernetesOptions) -> Finisher:
    return Finisher(
        api,
        options.limit,
        delete=options.delete,
        delete_failed=options.delete_failed,
        delete_options=options.delete_options,
    )
