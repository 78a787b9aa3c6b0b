# SPDX-License-Identifier: Apache-2.0
"""A node for an API server without nodes: scheduler and kubelet in one, with local processes as pods.

In a test::

    with NodeAgent(server.kubeconfig(), env={"PATH": os.environ["PATH"]}) as agent:
        ...

or as a program: ``python dev node-agent --kubeconfig FILE --env PATH="$PATH"``.

Only the first container of a pod is run; init containers and other containers are reported as done. Volumes,
probes, restarts, and variables from secrets and config maps are not there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from devkit.arguments import parser_of
from devkit.servers.kube_client import Access, KubeClient
from devkit.servers.kubelet import Decide, Kubelet
from devkit.servers.pod_fates import ANNOTATION, EXIT, KINDS, Fate


class NodeAgent:
    """The agent on a thread of its own, from ``start`` until ``stop``; usable once.

    :param kubeconfig: of a user with every permission.
    :param context: in that file; its current one when not given.
    :param namespaces: where it looks for pods; everywhere when there are none.
    :param env: the variables of every process, below those of its container; only PATH when not given.
    :param processes: how many run at a time, further pods wait; with 0 none is ever run, and a pod
        that is meant to run succeeds instead.
    :param decide: gives a pod's fate from its manifest, on the agent's thread; its annotation
        ``dispatch-test/fate`` goes before.
    :param node: the name of the Node object.
    :param folder: for the processes' output, and where they run; a temporary one when not given.
    """

    def __init__(
        self,
        kubeconfig: Path,
        *,
        context: str | None = None,
        namespaces: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        processes: int = 4,
        decide: Decide | None = None,
        node: str = "test-node",
        folder: Path | None = None,
    ) -> None:
        self._access = Access.load(kubeconfig, context)
        self._namespaces = tuple(namespaces)
        self._env = {"PATH": os.environ.get("PATH", os.defpath)} if env is None else dict(env)
        self._processes = processes
        self._decide = decide or (lambda pod: Fate())
        self._node = node
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="dispatch-node-"))
        self._kubelet: Kubelet | None = None
        self._thread: threading.Thread | None = None
        self._cancel: Callable[[], object] = lambda: None
        self._ready = threading.Event()
        self._error: BaseException | None = None

    def start(self, timeout: float = 60) -> None:
        """Return when it has listed the pods that are there."""
        self._thread = threading.Thread(target=self._serve, name="node-agent", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout):
            raise TimeoutError(f"the node agent has not reached {self._access.server} in {timeout:.0f} s")
        self._raise()

    def stop(self) -> None:
        """Kill what runs and leave the pods as they are; raises what ended the agent before, if anything did."""
        self._cancel()
        if self._thread:
            self._thread.join()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._raise()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            with contextlib.suppress(Exception):
                self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def started(self) -> list[str]:
        """``namespace/name`` of each pod that was Running, in that order; one that ran twice is there twice."""
        return list(self._kubelet.started) if self._kubelet else []

    @property
    def peak(self) -> int:
        """How many processes there were at most at a time."""
        return self._kubelet.peak if self._kubelet else 0

    def log(self, namespace: str, pod: str) -> str:
        """Output of all pods of this name, also those that are gone."""
        files = sorted(self.folder.glob(f"{namespace}_{pod}_*.log"), key=lambda path: path.stat().st_mtime)
        return "".join(path.read_text(errors="replace") for path in files)

    async def serve(self, on_ready: Callable[[], None]) -> None:
        """Be a node on the running event loop until cancelled."""
        async with KubeClient.open(self._access) as client:
            self._kubelet = Kubelet(
                client,
                self.folder,
                node=self._node,
                namespaces=self._namespaces,
                env=self._env,
                processes=self._processes,
                decide=self._decide,
            )
            await self._kubelet.run(on_ready)

    def _serve(self) -> None:
        try:
            asyncio.run(self._cancellable())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _cancellable(self) -> None:
        task = asyncio.ensure_future(self.serve(self._ready.set))
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(task.cancel)

        self._cancel = cancel
        await task

    def _raise(self) -> None:
        if self._error:
            raise RuntimeError("the node agent ended") from self._error


def airflow_env(env: Mapping[str, str]) -> dict[str, str]:
    """Those variables, with a PATH by which processes find the ``airflow`` and the ``python`` of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**env, "PATH": path}


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _parse() -> argparse.Namespace:
    parser = parser_of(
        "python dev node-agent",
        description="Run the pods of a Kubernetes API server without nodes as processes of this machine.",
        epilog=f"The annotation {ANNOTATION} of a pod decides otherwise: {', '.join(KINDS)}.",
    )
    parser.add_argument("--kubeconfig", type=Path, required=True, help="of a user with every permission")
    parser.add_argument("--context", help="in that file (default: its current one)")
    parser.add_argument("--namespace", action="append", default=[], help="again for more (default: all)")
    parser.add_argument(
        "--env",
        action="append",
        type=_variable,
        metavar="NAME=VALUE",
        help="for every process; again for more (default: this PATH)",
    )
    parser.add_argument("--processes", type=int, default=4, help="at a time (default: %(default)s)")
    parser.add_argument(
        "--instant", type=float, metavar="SECONDS", help="run nothing: each pod succeeds after this time"
    )
    parser.add_argument("--node", default="test-node", help="name of the node (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="for the processes' output (default: a temporary one)")
    return parser.parse_args()


async def _until_signalled(agent: NodeAgent) -> None:
    task = asyncio.ensure_future(agent.serve(lambda: print("ready", flush=True)))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> None:
    options = _parse()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    agent = NodeAgent(
        options.kubeconfig,
        context=options.context,
        namespaces=options.namespace,
        env=dict(options.env) if options.env else None,
        processes=options.processes,
        decide=None if options.instant is None else lambda pod: Fate(EXIT, after=options.instant),
        node=options.node,
        folder=options.folder,
    )
    try:
        asyncio.run(_until_signalled(agent))
    finally:
        agent.stop()
