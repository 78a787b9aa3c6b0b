# SPDX-License-Identifier: Apache-2.0
"""Keeps the tracker informed of the pods of one namespace: a list, then a watch from there on."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Protocol

from airflow_dispatch_provider.engines.kubernetes import answers
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes.pod_api import ApiRefused, Json, NotConnected, PodApi
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble

log = logging.getLogger(__name__)


LOOK = 30.0
"""Seconds between two comparisons of what is known with what is there."""

LAG = 5.0
"""Seconds for which the news of a watch may come later than a list."""

Versions = Mapping[PodName, str | None]


def is_deaf(before: Versions, listed: Versions, after: Versions) -> bool:
    """
    Whether a watch has not told what a list shows. A cluster that was rebuilt, or restored, at the same address may
    accept a watch from a version that it has never had, and tell nothing.

    :param before: resource versions that were seen last, when the list was asked for; None: not seen yet
    :param listed: those in the list
    :param after: those that were seen last, a while later
    """
    untold = [pod for pod, version in before.items() if pod in after and after[pod] == version]
    return any(pod not in listed or listed[pod] != before[pod] for pod in untold)


def has_gone_back(version: str, seen: str | None) -> bool:
    """Whether a list's resource version is below one that was seen before it (Kubernetes: they grow)."""
    return seen is not None and version.isdecimal() and seen.isdecimal() and int(version) < int(seen)


class Informed(Protocol):
    """Whoever is told of pods, and knows some."""

    def sure_pods(self, namespace: str | None) -> Collection[PodName]:
        """Those that a list which is asked for now will have, if they still exist."""
        ...

    def versions(self, namespace: str | None) -> Versions:
        """The same, with the resource version that was seen last; None: a watch has not told of it yet."""
        ...

    def see(self, event_type: str, manifest: Mapping[str, Any]) -> None:
        """A pod of a list, or of an event of a watch."""
        ...

    def missing(self, pods: Iterable[PodName]) -> None:
        """Those are not in the cluster any more."""
        ...


class _Expired(Exception):
    """The resource version is too old: what happened since then can only be seen in a new list."""


class Watcher:
    """Loses no news: a watch that ends is taken up where it ended, and where that is too long ago, a list shows what
    is there, and what is not there any more. Small lists now and then find out whether the watch tells all."""

    def __init__(self, api: PodApi, tracker: Informed, namespace: str | None, labels: str) -> None:
        """
        :param namespace: None: all of them
        :param labels: selects the pods
        """
        self._api, self._tracker, self._namespace, self._labels = api, tracker, namespace, labels
        # A watch that is cut is taken up at once: only where that does not work, something is wrong.
        self.trouble = Trouble(f"Watching pods in {namespace or 'all namespaces'}", patience=2)
        self._version: str | None = None
        self._doubted = asyncio.Event()

    async def look_now_and_then(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                deaf = await self._is_deaf()
            except Exception as error:
                log.debug("Pods cannot be compared with what is known of them: %s", reason_of(error))
                continue
            if deaf:
                log.warning("%s has missed something: all are listed anew.", self.trouble.what)
                self._doubted.set()

    async def _is_deaf(self) -> bool:
        before, seen = self._tracker.versions(self._namespace), self._version
        pods, version = await self._api.list_pods(self._namespace, metadata_only=True, labels=self._labels)
        if has_gone_back(version, seen):
            return True
        listed = {_name(pod): pod["metadata"].get("resourceVersion") for pod in pods}
        await asyncio.sleep(LAG)
        return is_deaf(before, listed, self._tracker.versions(self._namespace))

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            delay = random.uniform(0.0, 0.2)
            try:
                if self._version is None:
                    await self._list()
                await self._watch_until_doubted()
            except _Expired:
                self._version = None
            except Exception as error:
                if isinstance(error, ApiRefused) and error.reply.status == HTTPStatus.GONE:
                    self._version = None
                delay = self.trouble.failed(reason_of(error))
            await asyncio.sleep(delay)

    async def _list(self) -> None:
        known = set(self._tracker.sure_pods(self._namespace))
        pods, version = await self._api.list_pods(self._namespace, labels=self._labels)
        listed = set()
        for pod in pods:
            listed.add(_name(pod))
            self._tracker.see("MODIFIED", pod)
        self._tracker.missing(known - listed)
        self._version = version
        self.trouble.over()

    async def _watch_until_doubted(self) -> None:
        tasks = [asyncio.ensure_future(self._watch()), asyncio.ensure_future(self._doubted.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._doubted.is_set():
                self._doubted.clear()
                raise _Expired
            await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        assert self._version is not None
        opened = self.trouble.over
        async for event in self._api.watch_pods(self._namespace, self._version, opened, labels=self._labels):
            self._note(event)

    def _note(self, event: dict[str, Any]) -> None:
        kind, seen = event["type"], event["object"]
        if kind == "ERROR":
            if seen.get("code") == HTTPStatus.GONE:
                raise _Expired
            raise ConnectionError(seen.get("message") or "The server ended the watch.")
        if kind != "BOOKMARK":
            self._tracker.see(kind, seen)
        self._version = seen["metadata"]["resourceVersion"]


def _name(pod: Json) -> PodName:
    return PodName(pod["metadata"]["namespace"], pod["metadata"]["name"])


def reason_of(error: Exception) -> str:
    """One sentence about a list, a watch or a change that failed."""
    if isinstance(error, ApiRefused):
        reply = error.reply
        return answers.of_change(reply.status, reply.headers, reply.body).reason
    if isinstance(error, NotConnected):
        return str(error)
    if isinstance(error, json.JSONDecodeError):
        return "The connection was cut in the middle of an answer."
    return answers.of_exception(error)[0].reason
