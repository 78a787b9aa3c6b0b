# SPDX-License-Identifier: Apache-2.0
"""Which pods are ours, what is known of each, and what of that is news. No I/O; for the thread of the API calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_dispatch_provider.bridge.airflow_api import WorkloadKey
from airflow_dispatch_provider.engines.kubernetes._seen import Kind, Observation, PodName
from airflow_dispatch_provider.engines.kubernetes.model import (
    Created,
    End,
    Ended,
    Released,
    Report,
    Stuck,
)
from airflow_dispatch_provider.engines.kubernetes.status import launch_problem, observe

ENDS = {Kind.SUCCEEDED: End.SUCCEEDED, Kind.FAILED: End.FAILED, Kind.DELETED: End.DELETED}


@dataclass(slots=True)
class _Pod:
    key: WorkloadKey
    sure: bool
    """Whether it exists for certain: the server has said so."""

    started: bool = False
    stuck: str | None = None

    version: str | None = None
    """``resourceVersion`` that was seen last."""

    labelled: bool = True
    """Whether lists and watches by this scheduler's label have it."""


class Tracker:
    """Turns what is seen of pods into reports: an end is reported once, however often it is seen."""

    def __init__(
        self,
        report: Callable[[Report], None],
        finish: Callable[[PodName, bool, bool], None],
        remove: Callable[[PodName], None],
        fatal_reasons: Collection[str],
    ) -> None:
        """
        :param finish: is told of each of our pods that has completed, whether it has failed, and whether containers
            beside the task's still run
        :param remove: is told of each pod to delete
        :param fatal_reasons: ``[kubernetes_executor] worker_pod_pending_fatal_container_state_reasons``
        """
        self._report, self._finish, self._remove = report, finish, remove
        self._fatal_reasons = frozenset(fatal_reasons)
        self._pods: dict[PodName, _Pod] = {}
        self._unwanted: set[PodName] = set()

    def __len__(self) -> int:
        return len(self._pods)

    def expect(self, pod: PodName, key: WorkloadKey) -> None:
        """It is about to be created: news of it may come before the answer."""
        self._pods.setdefault(pod, _Pod(key, sure=False))

    def confirm(self, pod: PodName) -> None:
        """The server has it. What was revoked meanwhile is removed now."""
        if pod in self._unwanted:
            self._unwanted.discard(pod)
            self._remove(pod)
        known = self._pods.get(pod)
        if known is not None and not known.sure:
            known.sure = True
            self._report(Created(known.key, pod))

    def adopt(self, pod: PodName, key: WorkloadKey) -> None:
        """It was another scheduler's."""
        self.expect(pod, key)
        self.confirm(pod)

    def has_no_label(self, pod: PodName) -> None:
        """Until it is seen again, lists by this scheduler's label leave it out."""
        if pod in self._pods:
            self._pods[pod].labelled = False

    def is_confirmed(self, pod: PodName) -> bool:
        """Whether the server has it, or had it."""
        known = self._pods.get(pod)
        return known is None or known.sure

    def drop(self, pod: PodName) -> bool:
        """It is certain that it was not created; False where it was revoked."""
        self._unwanted.discard(pod)
        return self._pods.pop(pod, None) is not None

    def revoke(self, pod: PodName) -> None:
        """Nobody waits for it any more: it is removed as soon as it is there, and nothing is reported."""
        known = self._pods.pop(pod, None)
        if known is None or known.sure:
            self._remove(pod)
        else:
            self._unwanted.add(pod)

    def pod_of(self, key: WorkloadKey) -> PodName | None:
        """The pod of a workload; asked seldom."""
        return next((pod for pod, known in self._pods.items() if known.key == key), None)

    def has_started(self, key: WorkloadKey) -> bool:
        """Whether its container is known to have started; asked seldom."""
        pod = self.pod_of(key)
        return pod is not None and self._pods[pod].started

    def sure_pods(self, namespace: str | None) -> set[PodName]:
        """Those that a list which is asked for now will have, if they still exist."""
        return set(self.versions(namespace))

    def versions(self, namespace: str | None) -> dict[PodName, str | None]:
        """The same, with the resource version that was seen last; None: a watch has not told of it yet."""
        return {
            pod: known.version
            for pod, known in self._pods.items()
            if known.sure and known.labelled and namespace in (None, pod.namespace)
        }

    def missing(self, pods: Iterable[PodName]) -> None:
        """Those are not in the cluster any more."""
        for pod in pods:
            known = self._pods.get(pod)
            if known is not None:
                self._end(pod, known, End.VANISHED, f"Pod {pod} is gone, and nobody saw how it ended.")

    def see(self, event_type: str, manifest: Mapping[str, Any]) -> None:
        """Take note of a pod from a list or of an event of a watch."""
        metadata = manifest["metadata"]
        pod = PodName(metadata["namespace"], metadata["name"])
        self.confirm(pod)
        known = self._pods.get(pod)
        if known is None:  # revoked, finished, or never ours
            return
        known.version, known.labelled = metadata.get("resourceVersion"), True
        self._note(pod, known, observe(event_type, manifest, self._fatal_reasons), manifest)

    def _note(self, pod: PodName, known: _Pod, seen: Observation, manifest: Mapping[str, Any]) -> None:
        known.started = known.started or seen.started
        if seen.kind is Kind.REVOKED:
            del self._pods[pod]
        elif seen.kind is Kind.RELEASED:
            del self._pods[pod]
            self._report(Released(known.key, pod))
        elif seen.kind in ENDS:
            end = ENDS[seen.kind]
            self._end(pod, known, end, seen.reason or "", seen.container_reason)
            if end is not End.DELETED:
                self._finish(pod, end is End.FAILED, seen.lives_on)
        elif seen.kind is Kind.PENDING:
            self._note_stuck(pod, known, launch_problem(manifest))

    def _note_stuck(self, pod: PodName, known: _Pod, reason: str | None) -> None:
        if reason is not None and reason != known.stuck:
            self._report(Stuck(known.key, pod, reason))
        known.stuck = reason or known.stuck

    def _end(
        self, pod: PodName, known: _Pod, end: End, reason: str, container_reason: str | None = None
    ) -> None:
        del self._pods[pod]
        self._report(Ended(known.key, pod, end, reason, known.started, container_reason))
