# SPDX-License-Identifier: Apache-2.0
"""Start an Airflow with the executor, the database and the servers of your choice, and give a shell in it.

Everything runs on this machine, in folders of its own, and is gone when the shell ends."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from devkit.arguments import add_airflow_version, parser_of
from devkit.environment import (
    REPO,
    DevError,
    enter,
    ignore_signals,
    interrupt_on_signals,
    say,
    step,
)
from devkit.shell import plan as shell_plan

_EPILOG = """executors: %(executors)s,
or any value of [core] executor. Servers that an executor cannot do without are started unasked.

examples:
  ./dev/shell --integration redis --integration kubernetes     the router over Local, Celery and Kubernetes
  ./dev/shell --executor celery-kubernetes --db postgres       a hybrid of Airflow 2, with all that it needs
  ./dev/shell --airflow-version 3.1.8 -- airflow dispatch backends
  ./dev/shell --no-airflow --integration rabbitmq -- pytest tests/integration/celery
  ./dev/shell --no-airflow -- pytest tests/acceptance/test_celery.py

Exit code: that of the shell, or of the command after --. 2: it could not be started."""

EXAMPLE = """
from airflow.sdk import dag, task

@dag(schedule=None, catchup=False)
def one_task_for_each_queue():
    @task
    def where():
        import socket
        print(socket.gethostname())

    for queue in {queues!r}:
        where.override(task_id=queue, queue=queue)()

one_task_for_each_queue()
"""


def main() -> int:
    options, command = _parse()
    enter(options.airflow_version)
    interrupt_on_signals()
    with contextlib.ExitStack() as stack:
        try:
            env = _start(stack, options)
            return subprocess.run(command, env=env, cwd=REPO, check=False).returncode
        finally:
            ignore_signals()


def _start(stack: contextlib.ExitStack, options: argparse.Namespace) -> dict[str, str]:
    """Start what was asked for; returns the environment of the shell."""
    from devkit.servers.node_agent import airflow_env
    from devkit.shell import servers as shell_servers  # needs the environment that was just entered

    asked = shell_plan.integrations("" if options.no_airflow else options.executor, options.integration)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dispatch-shell-")))
    try:
        servers = shell_servers.start(stack, asked, folder)
        env = {**os.environ, **servers.variables}
        if not options.no_airflow:
            env = _airflow(stack, folder, options, servers.options)
    except RuntimeError as error:
        raise DevError(str(error)) from error
    return airflow_env(env)


def _airflow(
    stack: contextlib.ExitStack,
    folder: Path,
    options: argparse.Namespace,
    sections: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    """Start it; returns the environment of its processes."""
    from devkit.deployments.airflow_api import ClusterError
    from devkit.deployments.airflow_cluster import AirflowCluster
    from devkit.servers.postgres import PostgresServer
    from devkit.shell import servers as shell_servers

    variables = shell_plan.settings(options.executor, sections)
    database = stack.enter_context(PostgresServer()).url if options.db == "postgres" else None
    airflow = AirflowCluster(folder / "airflow", variables, database)
    (airflow.dags / "example.py").write_text(EXAMPLE.format(queues=list(shell_plan.queues(variables))))
    with step("Starting Airflow"), _as_errors(ClusterError):
        stack.enter_context(airflow)
        if "celery" in sections:
            airflow.start_worker("worker", [shell_plan.QUEUE])
    if "kubernetes_executor" in sections:
        shell_servers.start_node(stack, Path(sections["kubernetes_executor"]["config_file"]), airflow.env)
    say(
        f"\nUI            {airflow.url} (no login)\nAIRFLOW_HOME  {airflow.home}\nDags          {airflow.dags}"
    )
    say(
        f"To begin with: {shell_plan.first_command(options.executor)}; airflow dags trigger one_task_for_each_queue"
    )
    say("Everything is stopped and deleted when the shell, or the command, ends.")
    return airflow.env


@contextlib.contextmanager
def _as_errors(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        raise DevError(str(error)) from error


def _parse() -> tuple[argparse.Namespace, list[str]]:
    parser = parser_of(
        "./dev/shell",
        __doc__,
        epilog=_EPILOG % {"executors": ", ".join(shell_plan.EXECUTORS)},
        usage="./dev/shell [options] [-- command ...]",
    )
    add_airflow_version(parser)
    parser.add_argument("--executor", default="dispatch", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--db",
        choices=("sqlite", "postgres"),
        default="sqlite",
        help="Airflow's database (default: %(default)s)",
    )
    parser.add_argument(
        "--integration",
        action="append",
        choices=shell_plan.INTEGRATIONS,
        default=[],
        help="a server to start; again for more",
    )
    parser.add_argument(
        "--no-airflow", action="store_true", help="only the environment and the servers, as tests need it"
    )
    arguments, command = sys.argv[1:], []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, command = arguments[:split], arguments[split + 1 :]
    shell = os.environ.get("SHELL") or shutil.which("sh") or "/bin/sh"
    return parser.parse_args(arguments), command or [shell]
