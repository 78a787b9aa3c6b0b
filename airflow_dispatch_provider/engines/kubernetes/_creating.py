# SPDX-License-Identifier: Apache-2.0
"""Asking for the pod of one dispatch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.engines.kubernetes import witness
from airflow_dispatch_provider.engines.kubernetes._search import key_of
from airflow_dispatch_provider.engines.kubernetes._seen import PodName
from airflow_dispatch_provider.engines.kubernetes._verdicts import Answer, Verdict
from airflow_dispatch_provider.engines.kubernetes.pod_api import Json, PodApi
from airflow_dispatch_provider.engines.kubernetes.status import MARK
from airflow_dispatch_provider.engines.kubernetes.watcher import reason_of
from airflow_dispatch_provider.engines.kubernetes.witness import Doubt

log = logging.getLogger(__name__)

FRESH = 30.0
"""Seconds after which a token is made anew for another request."""


class Factory(Protocol):
    """See ``manifest.PodFactory``."""

    def build(self, workload: Any, key: Any) -> dict[str, Any]: ...

    def plain(self, namespace: str) -> Json | None: ...


@dataclass(slots=True, eq=False)
class Request:
    """A job that is to become a pod."""

    key: Any
    """The key of its job; a pod names its task as ``_search.key_of`` does."""

    workload: Any
    mark: str
    manifest: Json | None = None
    doubtful: bool = False
    """The server may have the pod; only its name and its mark tell."""

    minted: float = -math.inf
    """When its token was made (monotonic seconds); nobody knows how long it was on its way here."""

    @property
    def pod(self) -> PodName:
        """Once it has a manifest."""
        assert self.manifest is not None
        return PodName.of(self.manifest)


class Maker:
    """Makes manifests, and asks for their pods. For the thread of the API calls."""

    def __init__(
        self, api: PodApi, factory: Factory, own: Collection[str | None], renew: Callable[[Any], Any]
    ) -> None:
        """
        :param own: namespaces that the backend is configured for
        :param renew: gives a workload a new token where its own is not fresh
        """
        self._api, self._factory, self._own, self._renew = api, factory, own, renew

    def build(self, request: Request, now: float) -> None:
        """Give it a manifest, whose name it keeps, and whose token is fresh.

        :raises InvalidTask: it can have none
        """
        before, is_stale = request.manifest, now - request.minted >= FRESH
        if before is not None and not is_stale:
            return
        if is_stale:
            request.workload, request.minted = self._renew(request.workload), now
        workload = request.workload
        key = key_of(workload.ti) if airflow_api.is_task(workload) else request.key
        manifest = self._factory.build(workload, key)
        metadata = manifest["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), MARK: request.mark}
        if before is not None:
            metadata.update(name=request.pod.name, namespace=request.pod.namespace)
        request.manifest = manifest

    async def ask(self, request: Request) -> Answer:
        """Ask for its pod; where it was asked for in vain before, or an answer is lost, look whether it is there."""
        answer, doubt = await witness.attempt(
            self._api, request.manifest or {}, self._own, sent_before=request.doubtful
        )
        if not request.doubtful and doubt is Doubt.NONE:
            return answer
        request.doubtful = True
        try:
            is_ours = await self._look(request)
        except Exception as error:
            log.debug("Whether there is a pod %s cannot be found out: %s", request.pod, reason_of(error))
            return answer
        if is_ours is None:
            request.doubtful = doubt is Doubt.LOST
            return answer
        request.doubtful = False
        return Answer(*(_CREATED if is_ours else _TAKEN))

    async def _look(self, request: Request) -> bool | None:
        """Whether the pod of that name is this dispatch's; None: there is none."""
        name = f"metadata.name={request.pod.name}"
        pods, _ = await self._api.list_pods(request.pod.namespace, metadata_only=True, fields=name)
        if not pods:
            return None
        return bool((pods[0]["metadata"].get("annotations") or {}).get(MARK) == request.mark)


_CREATED = Verdict.DONE, "An earlier request has created the pod already"
_TAKEN = Verdict.INVALID, "Another pod has this name"
