# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow on this machine: real processes, a home folder of its own, free ports, its REST API.

Used by ``./dev/demo`` and by the acceptance tests::

    with AirflowCluster(home, env={"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}) as airflow:
        run_id = airflow.trigger("my_dag")
        airflow.wait_for_run("my_dag", run_id, timeout=60)

It runs the ``airflow`` of the Python environment that it is imported in, or of another one.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from devkit.deployments.airflow_api import AirflowApi, ClusterError
from devkit.environment import variables_of, without_airflow_settings
from devkit.servers.process import Startable, free_port

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")

# The component's name in Airflow's health report, for those that it covers.
_HEALTH = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
_ENDED = frozenset({"success", "failed"})


class AirflowCluster(AirflowApi, Startable):
    """Airflow's components as child processes, and the REST API to talk to them.

    :param home: becomes AIRFLOW_HOME; Dags go to its ``dags`` folder, the processes' output to ``processes``.
    :param env: Airflow settings on top of the defaults here, as ``AIRFLOW__SECTION__OPTION``.
    :param db_url: SQLAlchemy URL of the metadata database; a SQLite file in ``home`` when not given.
    :param components: which processes ``start`` starts.
    :param is_migrated: whether the database has Airflow's tables already.
    :param port: of the API server; a free one when not given.
    :param python: of the environment with Airflow.
    :param uid: whose processes they are; another than this process's needs root, and a ``home`` that is theirs.
    """

    def __init__(
        self,
        home: Path,
        env: Mapping[str, str] | None = None,
        db_url: str | None = None,
        components: Sequence[str] = COMPONENTS,
        is_migrated: bool = False,
        port: int | None = None,
        python: Path = Path(sys.executable),
        uid: int | None = None,
    ) -> None:
        self.home = Path(home).resolve()
        self.is_migrated = is_migrated
        self.components = tuple(components)
        self.port = port or free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.dags = self.home / "dags"
        self.dags.mkdir(parents=True, exist_ok=True)
        self._output = self.home / "processes"
        self._output.mkdir(exist_ok=True)
        self.env = {**without_airflow_settings(), **self._settings(db_url), **(env or {})}
        self._airflow = [str(python), "-m", "airflow"]
        is_other = uid not in (None, os.getuid())
        self._user: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []} if is_other else {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    # Processes

    def start(self, timeout: float = 180, on_poll: Callable[[str], None] | None = None) -> None:
        """Make the database, start the components and wait until all of them are healthy.

        ``on_poll`` is called about once a second with what is being waited for.
        """
        if not self.is_migrated:
            self.migrate()
        for component in self.components:
            self.start_component(component)
        self.wait_until_healthy(timeout, on_poll)

    def migrate(self) -> None:
        """Create or update the metadata database."""
        self.cli("db", "migrate", check=True)

    def start_component(self, name: str) -> None:
        """Start one component."""
        self._launch(name, [name, *self._arguments(name)])

    def start_worker(
        self, name: str, queues: Sequence[str], concurrency: int = 2, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a Celery worker as the component ``name``, with settings on top of the cluster's own."""
        arguments = ["celery", "worker", "--queues", ",".join(queues), "--concurrency", str(concurrency)]
        self._launch(name, [*arguments, "--celery-hostname", f"{name}@%h", "--skip-serve-logs"], env)

    def start_scheduler(self, name: str = "scheduler") -> None:
        """Start one; any but the first needs a ``name``, and serves logs on a port of its own."""
        env = {} if name == "scheduler" else {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port())}
        self._launch(name, ["scheduler"], env)

    def kill_scheduler(self, name: str = "scheduler") -> None:
        """SIGKILL a scheduler process and Airflow's ``serve-logs`` beside it; the executors' children are left
        to find out.

        ``serve-logs`` is forked with the scheduler's database connection open. Where it outlives the scheduler,
        as it does not under an init system, PostgreSQL goes on holding the locks of a transaction that the
        scheduler was killed in, and no other scheduler touches those Dag runs.
        """
        process = self._process(name)
        children = {} if self.has_ended(name) else self.children(name)
        process.kill()
        for child, command in children.items():
            if "serve-logs" in command:
                child.kill()
        process.wait()
        del self._processes[name]

    def children(self, name: str) -> dict[psutil.Process, str]:
        """The processes that a component has begun, with their command lines; not those that are ending meanwhile."""
        found = {}
        for child in psutil.Process(self.pid(name)).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
                found[child] = " ".join(child.cmdline())
        return found

    def has_ended(self, name: str) -> bool:
        """Whether a component was started, and has ended by itself."""
        return name in self._processes and self._processes[name].poll() is not None

    def kill_component(self, name: str) -> None:
        """SIGKILL to a component's whole process group."""
        process = self._process(name)
        self._signal_group(process.pid, signal.SIGKILL)
        process.wait()
        del self._processes[name]

    def stop_component(self, name: str, timeout: float = 20) -> int:
        """SIGTERM to a component's process group, SIGKILL after the time-out; returns its exit code."""
        process = self._process(name)
        self._signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
        self._signal_group(process.pid, signal.SIGKILL)
        del self._processes[name]
        return process.wait()

    def stop(self, timeout: float = 20) -> None:
        """Stop everything that was started, leaving no process behind; harmless when called again."""
        for process in self._processes.values():
            self._signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        self._kill_leftovers()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()

    def pid(self, name: str) -> int:
        """Of a component that runs."""
        return self._process(name).pid

    def log(self, component: str) -> Path:
        """The file with everything that a component printed."""
        return self._output / f"{component}.log"

    def wait_until_healthy(self, timeout: float = 180, on_poll: Callable[[str], None] | None = None) -> None:
        """Wait until every started component reports that it is healthy."""
        for waiting_for in self._polls(timeout, self._unhealthy, "are not healthy"):
            if on_poll:
                on_poll(", ".join(waiting_for))

    def check_running(self) -> None:
        """Raise ClusterError when a component that should run has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ClusterError(
                    f"the {name} ended with exit code {process.returncode}.\n{self._tail(name)}"
                )

    def cli(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run ``airflow <arguments>`` in this cluster; raises ClusterError on failure if ``check``."""
        done = subprocess.run(
            [*self._airflow, *arguments],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            **self._user,
        )
        if check and done.returncode:
            output = (done.stdout + done.stderr)[-3000:]
            raise ClusterError(f"`airflow {' '.join(arguments)}` ended with {done.returncode}:\n{output}")
        return done

    # Dags, runs and what is known about them

    def trigger(self, dag_id: str, conf: Mapping[str, object] | None = None, timeout: float = 60) -> str:
        """Wait until the Dag has been parsed, unpause it and start a run; returns the run id."""
        self.wait_for_dag(dag_id, timeout)
        self.request("PATCH", f"/api/v2/dags/{dag_id}", body={"is_paused": False})
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.request("POST", f"/api/v2/dags/{dag_id}/dagRuns", body=body)["dag_run_id"])

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> None:
        for _ in self._polls(timeout, lambda: self._unparsed(dag_id), "has not been parsed"):
            self.raise_import_errors()

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 120,
        on_poll: Callable[[], None] | None = None,
    ) -> str:
        """Wait until a run has ended; returns its state. ``on_poll`` is called about once a second."""
        try:
            for _ in self._polls(timeout, lambda: self._unfinished(dag_id, run_id), "has not ended"):
                if on_poll:
                    on_poll()
        except ClusterError as error:
            raise ClusterError(f"{self._open_tasks(dag_id, run_id)}\n{error}") from error
        return str(self.dag_run(dag_id, run_id)["state"])

    # Inside

    def _settings(self, db_url: str | None) -> dict[str, str]:
        options = {
            "core": {
                "dags_folder": str(self.dags),
                "load_examples": "False",
                "execution_api_server_url": f"{self.url}/execution/",
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "simple_auth_manager_all_admins": "True",
                # The full name would ask the name servers, which may be slow or absent.
                "hostname_callable": "socket.gethostname",
            },
            "api": {
                "base_url": self.url,
                "host": "127.0.0.1",
                "port": str(self.port),
                "workers": "1",
                "secret_key": secrets.token_hex(16),
            },
            "api_auth": {"jwt_secret": secrets.token_hex(32)},
            "dag_processor": {"refresh_interval": "5"},
            "database": {"sql_alchemy_conn": db_url or f"sqlite:///{self.home}/airflow.db"},
            "logging": {
                "worker_log_server_port": str(free_port()),
                "trigger_log_server_port": str(free_port()),
            },
            "usage_data_collection": {"enabled": "False"},
        }
        return {
            "AIRFLOW_HOME": str(self.home),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "PYTHONUNBUFFERED": "1",
            **variables_of(options),
        }

    def _launch(self, name: str, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Run an ``airflow`` command in a process group of its own, out of reach of the terminal's Ctrl-C."""
        with self.log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._airflow, *arguments],
                env={**self.env, **(env or {})},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._user,
            )

    def _arguments(self, component: str) -> list[str]:
        if component != "api-server":
            return []
        return ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]

    def _process(self, name: str) -> subprocess.Popen[bytes]:
        if name not in self._processes:
            raise ClusterError(
                f"the {name} was not started; started: {', '.join(self._processes) or 'nothing'}"
            )
        return self._processes[name]

    @staticmethod
    def _signal_group(group: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)

    def _kill_leftovers(self) -> None:
        """SIGKILL what is left of all components: executors put tasks into sessions of their own, and a killed
        scheduler leaves its children behind, so neither groups nor parents lead to all of them."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and self._is_ours(process):
                    process.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        return Path(process.cwd()) == self.home or process.environ().get("AIRFLOW_HOME") == str(self.home)

    def _polls(
        self, timeout: float, pending: Callable[[], Sequence[str]], problem: str
    ) -> Iterator[Sequence[str]]:
        """Yield what is still pending, about once a second, until it is nothing; ClusterError on time-out."""
        deadline = time.monotonic() + timeout
        while still := _unless_busy(pending):
            self.check_running()
            if time.monotonic() > deadline:
                ends = "\n".join(self._tail(name) for name in self._processes)
                raise ClusterError(f"{', '.join(still)} {problem} after {timeout:.0f} s.\n{ends}")
            yield still
            time.sleep(1)

    def _unhealthy(self) -> list[str]:
        try:
            health = self.health()
        except (ClusterError, OSError):
            return list(self._processes)
        return [
            name
            for name in self._processes
            if name in _HEALTH and (health.get(_HEALTH[name]) or {}).get("status") != "healthy"
        ]

    def _unparsed(self, dag_id: str) -> list[str]:
        try:
            self.request("GET", f"/api/v2/dags/{dag_id}")
        except ClusterError:
            return [f"Dag {dag_id}"]
        return []

    def _unfinished(self, dag_id: str, run_id: str) -> list[str]:
        return [] if self.dag_run(dag_id, run_id)["state"] in _ENDED else [f"run {run_id} of Dag {dag_id}"]

    def _open_tasks(self, dag_id: str, run_id: str) -> str:
        rows = [row for row in self.task_instances(dag_id, run_id) if row["state"] not in _ENDED]
        lines = (f"{row['task_id']} {row['state']}, pid {row['pid']}" for row in rows)
        return "\n".join(["Tasks that have not ended:", *lines])

    def _tail(self, component: str, lines: int = 30) -> str:
        path = self.log(component)
        text = path.read_text(errors="replace") if path.exists() else ""
        telling = [line[:300] for line in text.splitlines() if "http.access" not in line]
        return "\n".join([f"The end of {path}:", *telling[-lines:]])


def _unless_busy(pending: Callable[[], Sequence[str]]) -> Sequence[str]:
    """The pending components; also where the API server has not answered in time, as beside many starting tasks."""
    try:
        return pending()
    except TimeoutError:
        return ["an answer of the API server"]
