# SPDX-License-Identifier: Apache-2.0
"""An API server in memory, as far as the executor's calls go, and a factory of small pods."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes.pod_api import ApiRefused, Reply

NAMESPACE = "airflow"


def status(code: int, message: str = "", reason: str = "", **details: Any) -> Reply:
    """An error as an API server words it."""
    body = {"kind": "Status", "code": code, "message": message, "reason": reason, "details": details}
    return Reply(code, json.dumps(body))


def pod(name: str, phase: str = "Pending", deleted: bool = False, **more: Any) -> dict[str, Any]:
    """A pod as lists and watches have it."""
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "resourceVersion": "1", "labels": {}}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    state: dict[str, Any] = {"phase": phase, **more}
    if phase == "Running":
        running = {"name": "base", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        state["containerStatuses"] = [running]
    return {"metadata": metadata, "spec": {"containers": [{"name": "base"}]}, "status": state}


class FakeFactory:
    """Pods whose names count up."""

    def __init__(self) -> None:
        self.built: list[Any] = []
        self.error: Exception | None = None
        self.has_plain = True
        self.namespaces: dict[Any, str] = {}
        """Of the pods of those keys that have another one."""

    def build(self, workload: Any, key: Any) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.built.append(key)
        return {
            "metadata": {"name": f"pod-{len(self.built)}", "namespace": self.namespaces.get(key, NAMESPACE)}
        }

    def plain(self, namespace: str) -> dict[str, Any] | None:
        return {"metadata": {"name": "plain", "namespace": namespace}} if self.has_plain else None


class FakeApi:
    """Answers as it is told to, with success otherwise; remembers what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.pods: list[dict[str, Any]] = []
        self.events: deque[Any] = deque()
        self.watched_from: list[str] = []
        self.version = "100"
        self.at_once = 0
        self.most_at_once = 0
        self.answers: deque[Reply | Exception] = deque()
        self.rules: list[Callable[[str, str, dict[str, Any]], Reply | Exception | None]] = []
        """Each is given the verb, the namespace and the pod, and may answer, when ``answers`` is empty."""

        self.answered = 0.0
        self.gate = asyncio.Event()
        self.gate.set()

    def names(self, verb: str) -> list[str]:
        return [name for called, name in self.calls if called == verb]

    async def create_pod(self, namespace: str, manifest: dict[str, Any], dry_run: bool = False) -> Reply:
        return await self._answer("dry run" if dry_run else "create", manifest["metadata"]["name"], manifest)

    async def close(self) -> None:
        """There is no connection."""

    async def get_pod(self, namespace: str, name: str) -> Reply:
        return await self._answer("get", name)

    async def one_pod(self, namespace: str | None) -> Reply:
        return await self._answer("one", namespace or "")

    async def delete_pod(self, namespace: str, name: str, options: Any) -> Reply:
        return await self._answer("delete", name)

    async def label_pod(self, namespace: str, name: str, metadata: Any) -> Reply:
        return await self._answer("label " + ",".join(metadata["labels"]), name)

    async def list_pods(
        self, namespace: str | None, *, metadata_only: bool = False, **selectors: str
    ) -> tuple[list[dict[str, Any]], str]:
        verb = "list metadata" if metadata_only else "list"
        reply = await self._answer(verb, selectors.get("labels", ""), {"metadata": {"namespace": namespace}})
        if not reply.ok:
            raise ApiRefused(reply)
        return list(self.pods), self.version

    async def watch_pods(
        self, namespace: str | None, version: str, opened: Callable[[], None], **selectors: str
    ) -> AsyncIterator[dict[str, Any]]:
        self.watched_from.append(version)
        reply = await self._answer("watch", selectors.get("labels", ""))
        if not reply.ok:
            raise ApiRefused(reply)
        opened()
        while self.events:
            event = self.events.popleft()
            if isinstance(event, Exception):
                raise event
            yield event
        await asyncio.Event().wait()

    async def _answer(self, verb: str, name: str, manifest: dict[str, Any] | None = None) -> Reply:
        self.calls.append((verb, name))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
        finally:
            self.at_once -= 1
        answer = self.answers.popleft() if self.answers else self._by_rule(verb, name, manifest)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _by_rule(self, verb: str, name: str, manifest: dict[str, Any] | None) -> Reply | Exception:
        pod = manifest or {"metadata": {"name": name, "namespace": NAMESPACE}}
        namespace = pod["metadata"]["namespace"]
        answers = (rule(verb, namespace, pod) for rule in self.rules)
        return next((answer for answer in answers if answer is not None), Reply(200, "{}"))


def named(name: str) -> PodName:
    return PodName(NAMESPACE, name)


async def until(condition: Callable[[], object]) -> None:
    """Let the other coroutines of the loop go on until it is so."""
    while not condition():
        await asyncio.sleep(0.001)
