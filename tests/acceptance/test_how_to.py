# SPDX-License-Identifier: Apache-2.0
"""The how-to pages, followed to the letter in a whole Airflow: what they say to run is run, and works as they say.

An ordinary user follows them, whose processes the whole Airflow is then made of.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from literal.reader import Reader
from literal.users import SOMEBODY, User, identity, installed_for
from support import require

from devkit.deployments.airflow_cluster import AirflowCluster
from devkit.servers.kube import KubeServer, executor_options, kube_build, merged_kubeconfig
from devkit.servers.node_agent import NodeAgent, airflow_env
from devkit.servers.postgres import PostgresServer
from devkit.servers.valkey import ValkeyServer

from .conftest import COMPONENTS, wait
from .outcome import assert_succeeds
from .test_operating import status

pytestmark = [pytest.mark.acceptance, pytest.mark.once]

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
DISPATCH = {
    "AIRFLOW__CORE__EXECUTOR": "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}
PGREP = "pgrep -of '[a]irflow scheduler'"
"""How the pages find the scheduler; on a machine that runs other tests, the oldest may be that of one of those."""

BEFORE = """
backends:
  small: {executor: LocalExecutor, slots: 2}
  large: {executor: LocalExecutor, slots: 16}
routes:
  - {queue: heavy, to: [small]}
  - {queue: "batch-*", to: [small, large], overflow_after: 5}
default: large
"""
"""The routing file before a page is followed."""


@dataclass(frozen=True)
class Machine:
    """A folder of a user, and a database server."""

    user: User
    folder: Path
    postgres: PostgresServer
    migrated: str

    def folders(self, *names: str) -> list[Path]:
        for name in names:
            (self.folder / name).mkdir()
        return [self.folder / name for name in names]

    def deployment(self, routing_file: str, env: Mapping[str, str]) -> AirflowCluster:
        """The user's Airflow with a task for each queue of the pages; not started."""
        database = self.postgres.create_database(self.folder.name, self.migrated)
        home = self.folder / "opt airflow"
        file = {"AIRFLOW__DISPATCH__CONFIG_FILE": str(home / "dispatch.yaml")}
        env = {**DISPATCH, **file, **self.user.env, **identity(self.user.uid, home), **env}
        python, uid = self.user.bin / "python", self.user.uid
        cluster = AirflowCluster(home, env, database, COMPONENTS, is_migrated=True, python=python, uid=uid)
        shutil.copy(Path(__file__).with_name("how_to_dag.py"), cluster.dags)
        (home / "dispatch.yaml").write_text(routing_file)
        self.user.own(self.folder)
        return cluster


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with installed_for(SOMEBODY) as user:
        yield user


@pytest.fixture
def machine(user: User, postgres: PostgresServer, migrated: str) -> Iterator[Machine]:
    with user.folder() as folder:
        yield Machine(user, folder, postgres, migrated)


@contextmanager
def followed(page: str, user: User, cluster: AirflowCluster, **here: Path) -> Iterator[None]:
    """Follow a page on the machine of this Airflow; inside, what the page has started still runs.

    :param here: where on this machine the folders are that the page calls ``/opt/...`` and ``/run/...``
    """
    known = ("AIRFLOW", "NO_PROXY", *user.env)
    env = {name: value for name, value in cluster.env.items() if name.startswith(known)}
    env["AIRFLOW__METRICS__OTEL_ON"] = "False"  # commands would say where they send them
    renamed = {
        f'"$({PGREP})"': str(cluster.pid("scheduler")),
        "cd /opt/airflow": f'cd "{cluster.home}"',
    }
    renamed |= {"/opt/airflow/processes/scheduler.log": f'"{cluster.log("scheduler")}"'}
    renamed |= {f"/{name.replace('_', '/')}": str(folder) for name, folder in here.items()}
    with Reader([user.bin], env, user.uid, renamed) as reader:
        reader.follow(HOW_TO / page)
        yield


def follow(page: str, user: User, cluster: AirflowCluster) -> None:
    with followed(page, user, cluster):
        pass


def dispatched(cluster: AirflowCluster, dag_id: str, run_id: str) -> list[dict[str, str]]:
    """Entries of the event log that say where the task of a run went."""
    rows = cluster.event_logs(dag_id=dag_id, event="dispatched")
    return [json.loads(row["extra"]) for row in rows if row["run_id"] == run_id]


def state_of(cluster: AirflowCluster, dag_id: str, run_id: str) -> str | None:
    """None where there is no task instance yet, or the API server is too busy to answer."""
    try:
        rows = cluster.task_instances(dag_id, run_id)
    except OSError:
        return None
    return rows[0]["state"] if rows else None


def last_run(cluster: AirflowCluster, dag_id: str) -> str:
    return str(cluster.request("GET", f"/api/v2/dags/{dag_id}/dagRuns")["dag_runs"][-1]["dag_run_id"])


def assert_ran_on(cluster: AirflowCluster, dag_id: str, backend: str) -> None:
    """The run that the page has started ends in success, on that backend."""
    run_id = last_run(cluster, dag_id)
    assert_succeeds(cluster, dag_id, run_id, timeout=180)
    assert [event["backend"] for event in dispatched(cluster, dag_id, run_id)] == [backend]


# Celery and Kubernetes; first, so that nothing else runs meanwhile


def celery_env(broker: ValkeyServer) -> dict[str, str]:
    return {"AIRFLOW__CELERY__BROKER_URL": broker.url(), "AIRFLOW__CELERY__RESULT_BACKEND": broker.url(1)}


def test_add_a_celery_broker(machine: Machine) -> None:
    """A task of the new queue runs on the worker that the page has started, over the new broker."""
    (secrets,) = machine.folders("secrets")
    before = "backends: {near: {executor: CeleryExecutor, slots: 16}}\n"
    with ExitStack() as stack:
        near, far = (stack.enter_context(ValkeyServer()) for _ in range(2))
        (secrets / "far_broker").write_text(far.url())
        (secrets / "far_results").write_text(far.url(1))
        cluster = stack.enter_context(machine.deployment(before, celery_env(near)))
        with followed("add-a-broker.md", machine.user, cluster, run_secrets=secrets):
            assert_ran_on(cluster, "far", "far")


def test_add_a_kubernetes_cluster(machine: Machine) -> None:
    """A task of the new queue runs in a pod of the new cluster."""
    require(kube_build.can_provide(), f"there is no Kubernetes API server: {kube_build.ADVICE}")
    (kube,) = machine.folders("kube")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(KubeServer()) for name in ("cpu", "gpu")}
        options = executor_options(merged_kubeconfig(kube / "config", servers), kube)
        env = {f"AIRFLOW__KUBERNETES_EXECUTOR__{name.upper()}": value for name, value in options.items()}
        before = "backends: {cpu: {executor: KubernetesExecutor, slots: 20}}\n"
        cluster = stack.enter_context(machine.deployment(before, env))
        node = NodeAgent(servers["gpu"].kubeconfig(), env=airflow_env(cluster.env), processes=2)
        stack.enter_context(node)
        with followed("add-a-cluster.md", machine.user, cluster, opt_kube=kube):
            assert_ran_on(cluster, "gpu", "gpu")
        assert node.started


# One machine with two local backends


class Metrics(ThreadingHTTPServer):
    """Takes what Airflow sends by OpenTelemetry."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MetricsHandler)
        self.bodies: list[bytes] = []

    def has(self, name: str) -> bool:
        """Names stand in the messages as they are."""
        return any(name.encode() in body for body in self.bodies)


class _MetricsHandler(BaseHTTPRequestHandler):
    server: Metrics

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    with Metrics() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def local(user: User, postgres: PostgresServer, migrated: str, metrics: Metrics) -> Iterator[AirflowCluster]:
    env = {
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "AIRFLOW__METRICS__OTEL_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__OTEL_PORT": str(metrics.server_port),
        "AIRFLOW__METRICS__OTEL_INTERVAL_MILLISECONDS": "1000",
    }
    with (
        user.folder() as folder,
        Machine(user, folder, postgres, migrated).deployment(BEFORE, env) as cluster,
    ):
        yield cluster


@pytest.fixture
def hold(local: AirflowCluster) -> Iterator[Path]:
    """The file for as long as which tasks go on."""
    file = local.home / "hold"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


def test_change_routes_while_it_runs(user: User, local: AirflowCluster) -> None:
    (local.home / "dispatch.yaml").write_text(BEFORE)
    follow("change-routes.md", user, local)
    assert "is refused" not in local.log("scheduler").read_text()


def test_find_out_why_a_task_waits(user: User, local: AirflowCluster, hold: Path) -> None:
    """Three tasks for two slots: two have the entry that the page shows, one has none and is held."""
    runs = [local.trigger("heavy", {"while": str(hold)}) for _ in range(3)]
    wait(lambda: sum(state_of(local, "heavy", run) == "running" for run in runs) == 2, 120, local)
    wait(lambda: sorted(state_of(local, "heavy", run) or "" for run in runs)[0] == "queued", 60, local)
    follow("why-a-task-waits.md", user, local)
    events = [dispatched(local, "heavy", run) for run in runs]
    assert sorted(map(len, events)) == [0, 1, 1]
    page = (HOW_TO / "why-a-task-waits.md").read_text()
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert [event for found in events for event in found] == [json.loads(shown)] * 2
    hold.unlink()
    for run in runs:
        assert_succeeds(local, "heavy", run, timeout=120)


def test_monitor_it(user: User, local: AirflowCluster, metrics: Metrics) -> None:
    """Every metric of the page arrives, but for those of failures and of what waits, of which there are none."""
    assert_succeeds(local, "batch", local.trigger("batch"), timeout=120)
    follow("monitor.md", user, local)
    names = {*re.findall(r"`([a-z_.]+)\.<backend>`", (HOW_TO / "monitor.md").read_text())} - {
        "dispatch.failures",
        "dispatch.launch_failures",
        "dispatch.held_by_reason",
    }
    assert len(names) >= 4
    wait(lambda: all(metrics.has(f"{name}.small") for name in names), 60, local)


def test_the_pages_find_the_scheduler(local: AirflowCluster) -> None:
    """The command that they have finds it; its children, which are younger, do not matter to it."""
    found = subprocess.check_output(shlex.split(PGREP.replace("-of", "-f")), text=True).split()
    assert str(local.pid("scheduler")) in found


def test_drain_a_backend(user: User, local: AirflowCluster, hold: Path) -> None:
    """A running task goes on, one that may go elsewhere does, and one that may not waits until the end of the page."""
    (local.home / "dispatch.yaml").write_text(BEFORE)
    runs_there = local.trigger("heavy", {"while": str(hold)})
    wait(lambda: state_of(local, "heavy", runs_there) == "running", 120, local)

    def meanwhile() -> tuple[str, str]:
        wait(lambda: any(each["state"] == "draining" for each in status(local)["backends"]), 120, local)
        elsewhere, waits = local.trigger("batch"), local.trigger("heavy")
        assert_succeeds(local, "batch", elsewhere, timeout=120)
        assert state_of(local, "heavy", waits) == "queued"
        assert state_of(local, "heavy", runs_there) == "running"
        hold.unlink()
        return elsewhere, waits

    with ThreadPoolExecutor(1) as pool:
        both = pool.submit(meanwhile)
        follow("drain-a-backend.md", user, local)
        elsewhere, waits = both.result()
    assert_succeeds(local, "heavy", runs_there, timeout=60)
    assert_succeeds(local, "heavy", waits, timeout=120)
    (event,) = dispatched(local, "batch", elsewhere)
    assert (event["backend"], event["reason"]) == ("large", "failover")


def test_set_options_for_one_backend(user: User, local: AirflowCluster) -> None:
    """The command prints what the page shows, and so neither a URL nor the command that tells it."""
    follow("backend-options.md", user, local)
