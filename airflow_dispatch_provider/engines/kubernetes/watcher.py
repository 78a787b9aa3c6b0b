# SPDX-License-Identifier: Apache-2.0
"""Keeps the tracker informed of the pods of one namespace: a list, then a watch from there on."""

from __future__ import annotations

import asyncio
import json
import random
from http import HTTPStatus
from typing import Any

from airflow_dispatch_provider.engines.kubernetes import answers
from airflow_dispatch_provider.engines.kubernetes.pod_api import ApiRefused, NotConnected, PodApi
from airflow_dispatch_provider.engines.kubernetes.tracker import Tracker
from airflow_dispatch_provider.engines.kubernetes.trouble import Trouble


class _Expired(Exception):
    """The resource version is too old: what happened since then can only be seen in a new list."""


class Watcher:
    """Loses no news: a watch that ends is taken up where it ended, and where that is too long ago, a list shows what
    is there, and what is not there any more."""

    def __init__(self, api: PodApi, tracker: Tracker, namespace: str | None, labels: str) -> None:
        """
        :param namespace: None: all of them
        :param labels: selects the pods
        """
        self._api, self._tracker, self._namespace, self._labels = api, tracker, namespace, labels
        # A watch that is cut is taken up at once: only where that does not work, something is wrong.
        self.trouble = Trouble(f"Watching pods in {namespace or 'all namespaces'}", patience=2)
        self._version: str | None = None

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            delay = random.uniform(0.0, 0.2)
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
            except _Expired:
                self._version = None
            except Exception as error:
                if isinstance(error, ApiRefused) and error.reply.status == HTTPStatus.GONE:
                    self._version = None
                delay = self.trouble.failed(reason_of(error))
            await asyncio.sleep(delay)

    async def _list(self) -> None:
        known = self._tracker.sure_pods(self._namespace)
        pods, version = await self._api.list_pods(self._namespace, labels=self._labels)
        listed = set()
        for pod in pods:
            listed.add((pod["metadata"]["namespace"], pod["metadata"]["name"]))
            self._tracker.see("MODIFIED", pod)
        self._tracker.missing(known - listed)
        self._version = version
        self.trouble.over()

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
