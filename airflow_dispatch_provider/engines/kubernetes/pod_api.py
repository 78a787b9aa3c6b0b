# SPDX-License-Identifier: Apache-2.0
"""The calls that the executor makes, with JSON in and JSON out.

The client's models are left out: making them of an answer costs more than all the rest of a call.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp

from airflow_dispatch_provider.engines.kubernetes._tally import CREATION, DELETION, PATCHING, Tally
from airflow_dispatch_provider.engines.kubernetes.plugins import end_plugins

Json = dict[str, Any]

PAGE = 500
"""Pods in one answer to a list."""

METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
"""As Kubernetes' API names a list without specs and statuses; a server without it gives the whole."""


@dataclass(frozen=True)
class Timing:
    """All in seconds."""

    call: float = 20.0
    """Any single call but a watch."""

    watch: int = 300
    """After so long the server ends a watch by itself."""

    silence: float = 90.0
    """A watch that brings nothing for so long is opened anew; bookmarks come about once a minute."""

    connect: float = 60.0
    """Reading the cluster's configuration, with the plugin for credentials that it may name."""


@dataclass(frozen=True)
class Reply:
    """The server's answer to one call."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class ApiRefused(Exception):
    """A list or a watch was answered with an error."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(f"HTTP {reply.status}: {reply.body[:300]}")


class NotConnected(Exception):
    """The cluster's configuration or credentials cannot be read."""


class PodApi:
    """Pods of one cluster. For one event loop; each method raises what aiohttp raises where there is no answer."""

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], timing: Timing, options: Mapping[str, Any]
    ) -> None:
        """
        :param connect: makes an ApiClient of ``kubernetes_asyncio``; what it raises, calls raise as NotConnected
        :param options: ``[kubernetes_executor] kube_client_request_args``
        """
        self._connect = connect
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._timing = timing
        self._timeout = options.get("_request_timeout") or timing.call
        self.tally = Tally()
        self.answered = -math.inf
        """When the server last said anything (monotonic seconds)."""

    async def close(self) -> None:
        """Let go of the connections. The next call reads the cluster's configuration and credentials anew."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def create_pod(self, namespace: str, manifest: Json, dry_run: bool = False) -> Reply:
        query = [("dryRun", "All")] if dry_run else []
        request = self._ask("POST", _pods(namespace), manifest, query=query)
        return await (request if dry_run else self.tally.measure(CREATION, request))

    async def delete_pod(self, namespace: str, name: str, options: Mapping[str, Any]) -> Reply:
        request = self._ask("DELETE", _pod(namespace, name), dict(options) or None)
        return await self.tally.measure(DELETION, request)

    async def get_pod(self, namespace: str, name: str) -> Reply:
        return await self._ask("GET", _pod(namespace, name))

    async def one_pod(self, namespace: str | None) -> Reply:
        """A list of at most one: it costs the server next to nothing, and tells whether it serves.

        :param namespace: None: any
        """
        return await self._ask("GET", _pods(namespace), query=[("limit", "1")])

    async def label_pod(self, namespace: str, name: str, metadata: Json) -> Reply:
        """Merge labels and annotations into a pod's own."""
        kind = {"Content-Type": "application/merge-patch+json"}
        request = self._ask("PATCH", _pod(namespace, name), {"metadata": metadata}, headers=kind)
        return await self.tally.measure(PATCHING, request)

    async def list_pods(
        self, namespace: str | None, *, metadata_only: bool = False, **selectors: str
    ) -> tuple[list[Json], str]:
        """All pods that match, as of one moment, and the resource version of that moment.

        :param namespace: None: all of them
        :param metadata_only: leaves out what the server may leave out
        :raises ApiRefused: another answer than 200
        """
        pods: list[Json] = []
        query = [*_selecting(selectors), ("limit", str(PAGE))]
        headers = {"Accept": METADATA_ONLY} if metadata_only else {}
        more = None
        while True:
            page = [*query, ("continue", more)] if more else query
            reply = await self._ask("GET", _pods(namespace), query=page, headers=headers)
            if not reply.ok:
                raise ApiRefused(reply)
            answer = json.loads(reply.body)
            pods += answer["items"] or ()  # a list of metadata that is empty has null
            more = answer["metadata"].get("continue")
            if not more:
                return pods, answer["metadata"]["resourceVersion"]

    async def watch_pods(
        self, namespace: str | None, version: str, opened: Callable[[], None], **selectors: str
    ) -> AsyncIterator[Json]:
        """Events (``type``, ``object``) after a resource version, bookmarks included, until the server ends it.

        :param opened: called once the server has agreed
        :raises ApiRefused: another answer than 200
        """
        query = [
            *_selecting(selectors),
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(self._timing.watch)),
        ]
        timeout = aiohttp.ClientTimeout(sock_connect=self._timing.call, sock_read=self._timing.silence)
        response = await self._request("GET", _pods(namespace), query=query, timeout=timeout)
        try:
            if response.status != 200:
                raise ApiRefused(await self._reply(response))
            opened()
            async for line in response.content:
                self.answered = time.monotonic()
                yield json.loads(line)
        finally:
            response.close()

    async def _ask(self, method: str, path: str, body: Json | None = None, **more: Any) -> Reply:
        return await self._reply(await self._request(method, path, body, timeout=self._timeout, **more))

    async def _request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        timeout: Any,
        query: list[tuple[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        accept = {"Accept": "application/json", **(headers or {})}
        client = self._client or await self._connected()
        call = client.call_api(
            path,
            method,
            query_params=list(query or ()),
            header_params=accept,
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=timeout,
        )
        try:
            # A token that has expired is renewed by the plugin first, which the request's own time-out leaves out.
            async with asyncio.timeout(self._timing.connect + self._timing.call) as patience:
                return await call
        except TimeoutError:
            if patience.expired():
                end_plugins()
            raise

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                try:
                    async with asyncio.timeout(self._timing.connect):
                        self._client = await self._connect()
                except TimeoutError:
                    end_plugins()
                    within = f"within {self._timing.connect:g} s"
                    raise NotConnected(f"The cluster's credentials cannot be read {within}") from None
                except Exception as error:
                    raise NotConnected(f"{type(error).__name__}: {error}") from error
            return self._client

    async def _reply(self, response: Any) -> Reply:
        async with response:
            reply = Reply(response.status, await response.text(errors="replace"), response.headers)
        self.answered = time.monotonic()
        if reply.status == HTTPStatus.UNAUTHORIZED:
            await self.close()
        return reply


def _pods(namespace: str | None) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" if namespace else "/api/v1/pods"


def _pod(namespace: str, name: str) -> str:
    return f"{_pods(namespace)}/{quote(name, safe='')}"


def _selecting(selectors: Mapping[str, str]) -> list[tuple[str, str]]:
    """``labels`` and ``fields`` in the API's words."""
    names = {"labels": "labelSelector", "fields": "fieldSelector"}
    return [(names[name], value) for name, value in selectors.items()]
