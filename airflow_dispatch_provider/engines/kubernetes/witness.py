# SPDX-License-Identifier: Apache-2.0
"""Neutral requests, which tell whether others would meet what one job has met."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from enum import Enum
from http import HTTPStatus

from airflow_dispatch_provider.engines.kubernetes import answers
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Scope, Verdict
from airflow_dispatch_provider.engines.kubernetes.judgement import best
from airflow_dispatch_provider.engines.kubernetes.pod_api import Json, NotConnected, PodApi

SERVER_ERROR = 500
"""From this status on, what was asked for may have been done."""

_NONE = Answer(Verdict.INVALID, "There is no neutral pod to ask with.")


class Doubt(Enum):
    """Whether the answer to a create leaves open what has become of it."""

    NONE = 0
    FAILED = 1
    """The server has failed in the middle of it."""

    LOST = 2
    """There was no answer: it may even be carried out later."""


async def create(
    api: PodApi, manifest: Json, own: Collection[str | None], *, sent_before: bool, dry_run: bool = False
) -> tuple[Answer, bool]:
    """
    :param own: namespaces that the backend is configured for
    :return: the answer, and whether it leaves open what has become of the request
    """
    answer, doubt = await attempt(api, manifest, own, sent_before=sent_before, dry_run=dry_run)
    return answer, doubt is not Doubt.NONE


async def attempt(
    api: PodApi, manifest: Json, own: Collection[str | None], *, sent_before: bool, dry_run: bool = False
) -> tuple[Answer, Doubt]:
    """See ``create``."""
    namespace = manifest["metadata"]["namespace"]
    try:
        reply = await api.create_pod(namespace, manifest, dry_run=dry_run)
    except NotConnected as error:
        return Answer(Verdict.TROUBLE, str(error), scope=Scope.SERVER), Doubt.NONE
    except Exception as error:
        answer, certainly_not_sent = answers.of_exception(error)
        return answer, Doubt.NONE if certainly_not_sent else Doubt.LOST
    answer = answers.of_create(
        reply.status,
        reply.headers,
        reply.body,
        sent_before=sent_before,
        namespace=namespace,
        own_namespace=namespace in own,
    )
    failed = reply.status >= SERVER_ERROR and answer.verdict is not Verdict.INVALID
    return answer, Doubt.FAILED if failed else Doubt.NONE


class Witness:
    """Asks whether a pod that nobody has anything against could be created, and whether the server answers at all.
    Many that ask the same at a time share one answer."""

    def __init__(
        self, api: PodApi, plain: Callable[[str], Json | None], home: str | None, own: Collection[str | None]
    ) -> None:
        """
        :param plain: gives a pod of the backend's own template for a namespace, if that can be made
        :param home: a namespace whose pods may be listed; None: all of them
        :param own: see ``create``
        """
        self._api, self._plain, self._home, self._own = api, plain, home, own
        self._proven: dict[str, Json] = {}
        self._asking: dict[str, asyncio.Task[Answer]] = {}

    def has_created(self, manifest: Json) -> None:
        """The last pod that was created in a namespace is the second one that is asked with."""
        self._proven[manifest["metadata"]["namespace"]] = manifest

    async def ask(self, namespace: str) -> Answer:
        """Find out what neutral pods meet there now."""
        asking = self._asking.get(namespace)
        if asking is None:
            asking = self._asking[namespace] = asyncio.create_task(self._ask(namespace))
            asking.add_done_callback(lambda _: self._asking.pop(namespace, None))
        return await asyncio.shield(asking)

    async def server(self) -> Answer | None:
        """Why the server serves nobody now; None: it does."""
        try:
            reply = await self._api.one_pod(self._home)
        except NotConnected as error:
            return Answer(Verdict.TROUBLE, str(error), scope=Scope.SERVER)
        except Exception as error:
            return replace(answers.of_exception(error)[0], scope=Scope.SERVER)
        answer = answers.of_change(reply.status, reply.headers, reply.body)
        serves = reply.status == HTTPStatus.FORBIDDEN and answer.scope is not Scope.SERVER
        if serves or answer.verdict not in (Verdict.TROUBLE, Verdict.THROTTLED):
            return None
        return replace(answer, scope=Scope.SERVER)

    async def _ask(self, namespace: str) -> Answer:
        found = [_NONE]
        for manifest in self._manifests(namespace):
            answer, _ = await create(self._api, manifest, self._own, sent_before=True, dry_run=True)
            if answer.verdict is Verdict.DONE:
                return answer
            found.append(answer)
        answer = best(found)
        if answer.verdict is Verdict.TROUBLE and answer.scope is not Scope.SERVER:
            return await self.server() or answer
        return answer

    def _manifests(self, namespace: str) -> Iterator[Json]:
        for manifest in (self._plain(namespace), self._proven.get(namespace)):
            if manifest is not None:
                name = f"dispatch-neutral-{secrets.token_hex(4)}"
                yield {**manifest, "metadata": {**manifest["metadata"], "name": name}}
