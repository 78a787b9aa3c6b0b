# SPDX-License-Identifier: Apache-2.0
"""Texts of ./dev/demo: its routes and backends, how far it is, and how to look around. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from devkit.demo.layout import Layout
from devkit.demo.report import TaskRow
from devkit.tables import table

_WITH = {
    "CeleryExecutor": "own broker, worker {}",
    "KubernetesExecutor": "own cluster, node {}",
}


def introduction(layout: Layout) -> str:
    """Routes and backends, before anything is started."""
    routes = [(queue, ", then ".join(to), _when_full(to)) for queue, to in layout.routes.items()]
    routes.append(("any other", layout.default, f"the default: the demo's queue {layout.unrouted}"))
    backends = [(name, *_backend(layout, name)) for name in layout.slots]
    return "\n".join(
        [
            "Tasks of several queues; a route says which backends run the tasks of a queue:",
            *_indented(table(("queue", "backends", "what happens"), routes, rule=True)),
            "",
            "A backend runs as many tasks at a time as it has slots; other tasks are held:",
            *_indented(table(("backend", "slots", "executor", ""), backends, rule=True)),
            "",
        ]
    )


def status(rows: Sequence[TaskRow], layout: Layout) -> str:
    """How far the run is, in one line."""
    done = sum(row.ended for row in rows)
    held = sum(row.state == "queued" and not row.backend for row in rows)
    taken = {name: sum(row.backend == name and not row.ended for row in rows) for name in layout.slots}
    if held and not any(taken.values()):
        return f"{done}/{len(rows)} done, {held} held until the scheduler's next loop"
    busy = ", ".join(f"{name} {taken[name]} of {slots}" for name, slots in layout.slots.items())
    return f"{done}/{len(rows)} done, {held} held; busy: {busy}"


def tour(url: str, home: Path, dag_id: str) -> str:
    """Where the Airflow of ``--keep`` is, and what to try there.

    :param home: with the file of ``activation`` in it, under the name ``activate``
    """
    commands = table(
        ("$", ""),
        [
            (f". {shlex.quote(f'{home}/activate')}", ""),
            ("airflow dispatch backends", "# backends and their slots"),
            ("airflow dispatch routes", "# routes, in the order they win"),
            ("airflow dispatch explain --queue spill", "# where its tasks go, and why"),
            (f"airflow dags trigger {dag_id}", "# another run"),
        ],
    )
    return "\n".join(
        [
            "",
            "Airflow runs until you press Ctrl-C.",
            f"   UI            {url}/dags/{dag_id} (no login)",
            f"   AIRFLOW_HOME  {home}",
            f"   logs          {home}/processes",
            "To look around, in another terminal; the first line gives it this Airflow's\nenvironment:",
            *_indented(commands[1:]),
        ]
    )


def activation(env: Mapping[str, str], inherited: Mapping[str, str], programs: Path) -> str:
    """A file to source: afterwards ``airflow`` is the demo's, with the demo's settings.

    :param inherited: the environment that the demo was started in
    :param programs: the folder with the program ``airflow``
    """
    gone = sorted(name for name in inherited if name.startswith("AIRFLOW") and name not in env)
    changed = sorted(name for name, value in env.items() if inherited.get(name) != value)
    return "\n".join(
        [
            *(f"unset {name}" for name in gone),
            *(f"export {name}={shlex.quote(env[name])}" for name in changed),
            f'export PATH={shlex.quote(str(programs))}:"$PATH"',
            "",
        ]
    )


def _when_full(targets: Sequence[str]) -> str:
    if len(targets) == 1:
        return f"held while {targets[0]} is full"
    return f"overflow: runs on {targets[1]} while {targets[0]} is full"


def _backend(layout: Layout, name: str) -> tuple[int, str, str]:
    worker = layout.workers.get(name)
    executor = layout.executor_of(name)
    return layout.slots[name], executor, _WITH[executor].format(worker) if worker else ""


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"   {line}".rstrip() for line in lines]
