# SPDX-License-Identifier: Apache-2.0
"""The node agent's own work, on an event loop: which pods there are, and what becomes of each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from devkit.servers import pod_fates
from devkit.servers.kube_client import KubeClient, Refused
from devkit.servers.kubelet_logs import ContainerLog, log_server
from devkit.servers.pod_fates import ANNOTATION, Fate

Json = dict[str, Any]
Decide = Callable[[Json], Fate]

_CANNOT_START = 128
_KILLED = 137
_TERMINATED = 143
_GONE_OR_REPLACED = (404, 409)
_BETWEEN_WATCHES = 0.05


class Pod:
    """One pod, from when it was first seen until it is gone."""

    def __init__(self, manifest: Json, folder: Path) -> None:
        meta = manifest["metadata"]
        self.manifest = manifest
        self.uid: str = meta["uid"]
        self.namespace: str = meta["namespace"]
        self.name: str = meta["name"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.container: Json = manifest["spec"]["containers"][0]
        self.log = folder / f"{self.namespace}_{self.name}_{self.uid}.log"
        self.since = pod_fates.now()
        self.runs = False
        self.ended = manifest["status"].get("phase") in ("Succeeded", "Failed")
        self.lost = False
        self.running = asyncio.Event()
        self.deleting = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def node(self) -> str:
        return self.manifest["spec"].get("nodeName") or ""

    @property
    def grace(self) -> float:
        """Seconds that its process has to end by itself when it is deleted."""
        return float(self.manifest["metadata"].get("deletionGracePeriodSeconds") or 0)


Act = Callable[[Pod], Awaitable[None]]


class Kubelet:
    """See ``NodeAgent`` for the parameters."""

    def __init__(
        self,
        client: KubeClient,
        folder: Path,
        *,
        node: str,
        namespaces: Sequence[str],
        env: Mapping[str, str],
        processes: int,
        decide: Decide,
    ) -> None:
        self.pods: dict[str, Pod] = {}
        self.started: list[str] = []
        self.peak = 0
        self._alive = 0
        self._client = client
        self._folder = folder
        self._node = node
        self._scopes = [f"/api/v1/namespaces/{name}/pods" for name in namespaces] or ["/api/v1/pods"]
        self._env = dict(env)
        self._slots = asyncio.Semaphore(processes) if processes else None
        self._decide = decide
        self._port = 0
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Be a node until cancelled; calls back when the pods that are there have been listed."""
        async with log_server(self._log_of) as self._port:
            try:
                versions = [await self._list(scope) for scope in self._scopes]
                on_ready()
                watches = [self._follow(*each) for each in zip(self._scopes, versions, strict=True)]
                await asyncio.gather(self._failure, *watches)
            finally:
                await self._abandon_all()

    # The pods that there are

    async def _follow(self, scope: str, version: str) -> None:
        while True:
            # After a broken watch too the pods are listed: the server may have come back with other data.
            with contextlib.suppress(Refused):
                async for event in self._client.watch(scope, version):
                    if event["type"] == "DELETED":
                        self._forget(event["object"]["metadata"]["uid"])
                    elif event["type"] != "BOOKMARK":
                        self._see(event["object"])
            await asyncio.sleep(_BETWEEN_WATCHES)
            version = await self._list(scope)

    async def _list(self, scope: str) -> str:
        await self._register()
        listed = await self._client.call("GET", scope)
        there = {pod["metadata"]["uid"] for pod in listed["items"]}
        known = [
            pod.uid for pod in self.pods.values() if pod.path.startswith(scope) or len(self._scopes) == 1
        ]
        for uid in known:
            if uid not in there:
                self._forget(uid)
        for manifest in listed["items"]:
            self._see(manifest)
        return str(listed["metadata"]["resourceVersion"])

    async def _register(self) -> None:
        """Make the Node object, or bring it up to date."""
        try:
            await self._client.call("POST", "/api/v1/nodes", {"metadata": {"name": self._node}})
        except Refused as error:
            if error.status != 409:
                raise
        resources = {"cpu": "64", "memory": "256Gi", "pods": "10000"}
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }
        await self._client.call("PATCH", f"/api/v1/nodes/{self._node}/status", {"status": status})

    def _see(self, manifest: Json) -> None:
        uid = manifest["metadata"]["uid"]
        pod = self.pods.get(uid)
        if pod:
            pod.manifest = manifest
        else:
            pod = Pod(manifest, self._folder)
            if pod.node not in ("", self._node):
                return
            self.pods[uid] = pod
            self._start(pod, self._live)
        if manifest["metadata"].get("deletionTimestamp") and not pod.deleting.is_set():
            self._delete(pod)

    def _delete(self, pod: Pod) -> None:
        pod.deleting.set()
        # One that runs sees it by itself, and a lost one must not be confirmed.
        if not pod.runs and not pod.lost:
            self._start(pod, self._confirm)

    def _forget(self, uid: str) -> None:
        pod = self.pods.pop(uid, None)
        if pod and pod.task:
            pod.task.cancel()

    def _start(self, pod: Pod, act: Act) -> None:
        if pod.task:
            pod.task.cancel()
        pod.task = asyncio.create_task(self._guarded(pod, act))

    async def _guarded(self, pod: Pod, act: Act) -> None:
        try:
            await act(pod)
        except Refused as error:
            if error.status not in _GONE_OR_REPLACED:
                self._fail(error)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    async def _abandon_all(self) -> None:
        tasks = [pod.task for pod in self.pods.values() if pod.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _log_of(self, namespace: str, name: str, container: str) -> ContainerLog | None:
        for pod in reversed(self.pods.values()):
            if (pod.namespace, pod.name, pod.container["name"]) == (namespace, name, container):
                return ContainerLog(pod.log, partial(getattr, pod, "ended"))
        return None

    # What becomes of one

    async def _live(self, pod: Pod) -> None:
        if pod.ended:
            return
        if pod.manifest["status"].get("phase") == "Running":  # of an agent before this one
            pod.ended = True
            await self._report(pod, _unknown(pod))
            return
        fate = self._fate(pod)
        if fate.kind == pod_fates.UNSCHEDULABLE:
            await self._report(pod, pod_fates.unschedulable())
            return
        if not pod.node:
            await self._bind(pod)
        if fate.kind == pod_fates.IMAGE_PULL_ERROR:
            await self._fail_to_pull(pod, fate)
        elif fate.kind == pod_fates.PREEMPTED:
            await self._preempt(pod, fate)
        else:
            await self._run(pod, fate)

    def _fate(self, pod: Pod) -> Fate:
        annotations = pod.manifest["metadata"].get("annotations") or {}
        return Fate(annotations[ANNOTATION]) if ANNOTATION in annotations else self._decide(pod.manifest)

    async def _bind(self, pod: Pod) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": self._node}
        binding = {"metadata": {"name": pod.name, "uid": pod.uid}, "target": target}
        try:
            await self._client.call("POST", f"{pod.path}/binding", binding)
        except Refused as error:
            # Also the answer to a second try after the first one's answer was lost.
            if error.status != 409 or not await self._is_bound(pod):
                raise

    async def _is_bound(self, pod: Pod) -> bool:
        there = await self._client.call("GET", pod.path)
        return (there["metadata"]["uid"], there["spec"].get("nodeName")) == (pod.uid, self._node)

    async def _fail_to_pull(self, pod: Pod, fate: Fate) -> None:
        await self._report(pod, pod_fates.image_pull(pod.manifest, "ErrImagePull"))
        await asyncio.sleep(fate.after)
        await self._report(pod, pod_fates.image_pull(pod.manifest, "ImagePullBackOff"))

    async def _preempt(self, pod: Pod, fate: Fate) -> None:
        async def scheduler(pod: Pod) -> None:
            await pod.running.wait()
            await asyncio.sleep(fate.after)
            await self._report(pod, pod_fates.preempted())
            await self._request_deletion(pod)

        task = asyncio.create_task(self._guarded(pod, scheduler))
        try:
            await self._run(pod, Fate())
        finally:
            task.cancel()

    async def _run(self, pod: Pod, fate: Fate) -> None:
        """Occupy the pod with a process, or with nothing, until it ends or its fate strikes."""
        if fate.kind == pod_fates.EXIT or not self._slots:
            pod.runs = True
            exit_code, struck = await self._pretend(pod, fate)
        else:
            async with self._slots:
                pod.runs = True
                exit_code, struck = await self._process(pod, fate)
        await self._conclude(pod, fate.kind if struck else pod_fates.RUN, exit_code)

    async def _conclude(self, pod: Pod, kind: str, exit_code: int) -> None:
        if kind == pod_fates.NODE_LOST:
            pod.lost = True
            await self._report(pod, pod_fates.node_lost())
            await self._request_deletion(pod)
            return
        pod.ended = True
        await self._report(pod, _final_status(pod, kind, exit_code))
        pod.runs = False
        if pod.deleting.is_set():
            await self._confirm(pod)

    async def _pretend(self, pod: Pod, fate: Fate) -> tuple[int, bool]:
        await self._report_running(pod)
        try:
            await asyncio.wait_for(pod.deleting.wait(), max(fate.after, 0.001))
        except TimeoutError:
            return fate.exit_code, True
        return _TERMINATED, False

    async def _process(self, pod: Pod, fate: Fate) -> tuple[int, bool]:
        try:
            process = await self._spawn(pod)
        except OSError as error:
            pod.log.write_text(f"{error}\n")
            return _CANNOT_START, False
        self._alive += 1
        self.peak = max(self.peak, self._alive)
        try:
            await self._report_running(pod)
            return await self._wait(pod, process, None if fate.kind == pod_fates.RUN else fate.after)
        finally:
            self._alive -= 1
            _signal(process, signal.SIGKILL)  # what it left behind, or itself where this was cancelled
            await process.wait()

    async def _spawn(self, pod: Pod) -> Process:
        command = [*(pod.container.get("command") or ()), *(pod.container.get("args") or ())]
        if not command:
            raise OSError("the container has neither command nor args, and there are no images here")
        folder = pod.container.get("workingDir")
        base = {**self._env, "HOSTNAME": pod.name}
        with pod.log.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                env=pod_fates.environment({**pod.manifest, "spec": self._bound(pod)}, pod.container, base),
                cwd=folder if folder and os.path.isdir(folder) else self._folder,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                start_new_session=True,
            )

    def _bound(self, pod: Pod) -> Json:
        return {**pod.manifest["spec"], "nodeName": self._node}

    async def _wait(self, pod: Pod, process: Process, limit: float | None) -> tuple[int, bool]:
        """The exit code, and whether the time limit ended it."""
        ended = asyncio.create_task(process.wait())
        deleting = asyncio.create_task(pod.deleting.wait())
        try:
            await asyncio.wait({ended, deleting}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            struck = not ended.done() and not deleting.done()
            if not ended.done() and deleting.done():
                _signal(process, signal.SIGTERM)
                await asyncio.wait({ended}, timeout=pod.grace)
            _signal(process, signal.SIGKILL)
            code = await ended
        finally:
            deleting.cancel()
            ended.cancel()
        return (code if code >= 0 else 128 - code), struck

    async def _report_running(self, pod: Pod) -> None:
        pod.since = pod_fates.now()
        self.started.append(f"{pod.namespace}/{pod.name}")
        await self._report(pod, pod_fates.running(pod.manifest, pod.since))
        pod.running.set()

    async def _report(self, pod: Pod, status: Json) -> None:
        await self._client.call(
            "PATCH", f"{pod.path}/status", {"metadata": {"uid": pod.uid}, "status": status}
        )

    async def _confirm(self, pod: Pod) -> None:
        """Let a deleted pod go, as a kubelet does when nothing of it runs any more."""
        if not pod.ended:
            pod.ended = True
            await self._report(pod, _unknown(pod))
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        await self._client.call("DELETE", pod.path, options)

    async def _request_deletion(self, pod: Pod) -> None:
        await self._client.call("DELETE", pod.path, {"preconditions": {"uid": pod.uid}})


def _final_status(pod: Pod, kind: str, exit_code: int) -> Json:
    if kind == pod_fates.EVICTED:
        return pod_fates.evicted(pod.manifest, pod.since)
    if kind == pod_fates.OOM_KILLED:
        return pod_fates.ended(pod.manifest, pod.since, _KILLED, "OOMKilled")
    reason = "StartError" if exit_code == _CANNOT_START else ""
    return pod_fates.ended(pod.manifest, pod.since, exit_code, reason)


def _unknown(pod: Pod) -> Json:
    return pod_fates.ended(pod.manifest, pod.since, _KILLED, "ContainerStatusUnknown")


def _signal(process: Process, number: signal.Signals) -> None:
    """To the process and all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
