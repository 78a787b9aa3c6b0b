# SPDX-License-Identifier: Apache-2.0
"""Pods in a real API server: Airflow's KubernetesExecutor and this package's, in turn, each in a fresh process.

  creating   all workloads are queued at once; until there is a pod for each
  ending     all pods succeed at once; until each is reported, and deleted
  thread     time inside heartbeat(), which the scheduler waits for
  CPU        of the process and its children, for building, creating, watching and deleting
  memory     what the process and its children have more than before start(), while all pods are there

subjects: Airflow's executor as it comes, with worker_pods_creation_batch_size = 100, with async_pod_creation as well,
and this package's. There is no node: a pod ends by having its status changed. What is between the executor and the
server delays every answer by --latency, or nothing is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from devkit.bench.comparison import Figures, benchmark_parser, in_turn, lines
from devkit.environment import say, variables_of
from devkit.servers.faulty_proxy import FaultyProxy
from devkit.servers.kube import KubeServer, executor_options
from devkit.servers.kube_client import Access, KubeClient, Refused

BATCH = {"worker_pods_creation_batch_size": "100"}
SUBJECTS: dict[str, dict[str, str]] = {
    "airflow": {},
    "airflow-batch": BATCH,
    "airflow-async": {**BATCH, "async_pod_creation": "True"},
    "dispatch": {},
}
ROWS = {
    "thread_create": "creating: thread, us a pod",
    "longest_create": "creating: longest heartbeat, ms",
    "created": "creating: pods a second",
    "thread_finish": "ending: thread, us a pod",
    "longest_finish": "ending: longest heartbeat, ms",
    "cpu": "CPU, ms a pod",
    "processes": "extra processes",
    "memory": "extra memory (PSS), MiB",
}
CONNECTIONS = 16


def main() -> None:
    options = parse()
    os.environ["AIRFLOW__CORE__PARALLELISM"] = "1000000"
    # Both executors ask for the states of tasks that have ended; here there are none.
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
    with KubeServer() as server:
        found = {latency: bench(server, latency, options) for latency in options.latency}
    if options.output == "json":
        print(json.dumps(found, indent=2))
        return
    for latency, subjects in found.items():
        print("", *lines(f"{options.pods} pods, {latency:g} ms", ROWS, subjects), sep="\n")


def bench(server: KubeServer, latency: float, options: argparse.Namespace) -> dict[str, list[Figures]]:
    with slowed(server, latency) as url:

        def once(subject: str, _run: int) -> Figures:
            return measure(subject, server, url, options.pods)

        return in_turn(options.subjects, options.runs, ROWS, once, f"{latency:g} ms, ")


@contextmanager
def slowed(server: KubeServer, latency: float) -> Iterator[str | None]:
    """The URL under which each answer comes that much later; None: the server's own."""
    if not latency:
        yield None
        return
    with FaultyProxy("127.0.0.1", server.port) as proxy:
        proxy.delay = latency / 2e3  # in each direction
        yield proxy.url(server.url())


def measure(subject: str, server: KubeServer, url: str | None, pods: int) -> Figures:
    namespace = server.create_namespace("bench")
    image = {"worker_container_repository": "none", "worker_container_tag": "none"}
    more = {**image, **SUBJECTS[subject]}
    given = executor_options(server.kubeconfig(url=url), server.folder, namespace, **more)
    env = variables_of({"kubernetes_executor": given})
    command = [sys.executable, "-m", "devkit.bench.kubernetes_run", subject, str(pods)]
    environ = {**os.environ, **env, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line == "created\n":
                asyncio.run(end_all(Access.load(server.kubeconfig()), namespace))
    if process.returncode:
        raise SystemExit(f"{subject} ended with exit code {process.returncode}: {''.join(lines)}")
    left = server.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    if left:
        say(f"{subject} has left {len(left)} of its pods behind")
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


async def end_all(access: Access, namespace: str) -> None:
    """Let every pod there succeed."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    async with KubeClient.open(access, CONNECTIONS) as client:
        listed: dict[str, Any] = await client.call("GET", pods)
        names = (pod["metadata"]["name"] for pod in listed["items"])
        await asyncio.gather(*(end(client, f"{pods}/{name}/status") for name in names))


async def end(client: KubeClient, path: str) -> None:
    with suppress(Refused):  # it is being deleted already
        await client.call("PATCH", path, {"status": {"phase": "Succeeded"}})


def parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--pods", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--latency",
        type=float,
        nargs="+",
        default=[0, 20],
        metavar="MS",
        help="added to each answer; 0: straight to the server (default: 0 20)",
    )
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    return parser.parse_args()
