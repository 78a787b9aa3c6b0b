# SPDX-License-Identifier: Apache-2.0
"""Every option of ``[dispatch]``, as provider metadata: Airflow shows it, the docs are made from it, and the
defaults that the code uses are these. Light enough to be imported by every ``airflow`` command."""

from __future__ import annotations

from typing import Any

SECTION = "dispatch"


def _option(
    type_: str, default: str | None, example: str | None, description: str, **more: Any
) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": type_,
        "example": example,
        "default": default,
        **more,
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "backends": _option(
        "string",
        None,
        '{"local": {"executor": "LocalExecutor", "slots": 8},'
        ' "celery": {"executor": "CeleryExecutor", "slots": 256}}',
        "The executors to choose among: a JSON object, by a name of yours (letters, digits, ``-`` and ``_``, at most"
        " 60, and a letter or digit first). Each has ``executor``"
        " (``LocalExecutor``, ``CeleryExecutor``, ``KubernetesExecutor`` or an import path), ``slots`` (how"
        " many workloads it may hold at once, for each scheduler, from 1 to 1000000, or ``workers``), and optionally"
        " ``cordoned``, ``fallback_slots`` and ``config`` (Airflow options for this backend alone, by section).\n",
        sensitive=True,
    ),
    "routes": _option(
        "string",
        "[]",
        '[{"queue": "gpu-*", "to": ["gpu", {"backend": "celery", "queue": "gpu"}], "overflow_after": 30}]',
        "Which queue goes to which backends: a JSON list. Each route has ``queue`` (exact name or glob),"
        " ``to`` (targets, best first), and optionally ``dag_id`` (exact or glob) and ``overflow_after``"
        " (seconds to wait for a full target before the next one is used, or ``never``).\n",
    ),
    "default": _option(
        "string",
        None,
        "celery",
        "Where a task goes whose queue matches no route: the name of a backend, or a JSON target or list of"
        " targets. May be left out where there is only one backend.\n",
    ),
    "config_file": _option(
        "string",
        None,
        "/opt/airflow/dispatch.yaml",
        "A YAML or JSON file with ``backends``, ``routes`` and ``default``, instead of the three options. It"
        " is read again when it changes: backends may come, go and change, too. A new version that is wrong is"
        " refused with a log line, and the last good one stays in use. At most 1 MB and 30000 values.\n",
    ),
    "on_refused_file": _option(
        "string",
        "stop",
        "last_good",
        "What a scheduler does that starts with a ``config_file`` that is wrong: ``stop`` ends it, with every"
        " mistake in its log. ``last_good`` goes on with the last version that a scheduler took over, if there is"
        " a copy in the folder ``dispatch-last-good`` of AIRFLOW_HOME, which only the user of the scheduler may"
        " read; until the file is right, an error is logged every five minutes, and the metric"
        " ``dispatch.config_file_refused`` is 1.\n",
    ),
    "max_held": _option(
        "integer",
        "10000",
        None,
        "How many workloads may wait for a slot of their backend; at the bound the router reports no free"
        " slots to the scheduler.\n",
    ),
    "retry_min_delay": _option(
        "float",
        "1.0",
        None,
        "Seconds until a backend that failed is tried again for the first time. The delay doubles with every"
        " failure.\n",
    ),
    "retry_max_delay": _option(
        "float",
        "60.0",
        None,
        "The longest delay in seconds between two tries of a backend that keeps failing.\n",
    ),
    "waits_event_after": _option(
        "float",
        "300.0",
        "60",
        "Seconds after which the event log of a task that is still held says why, also where its backends are only"
        " full; again when the reason changes. Of those that wait for the same targets, the first 20 get such entries."
        " 0: none get any. What is held because something is broken has an entry within half a minute, whatever this"
        " says.\n",
    ),
    "local_ahead": _option(
        "integer",
        "64",
        "0",
        "How many workloads the LocalExecutor's template process is given at most before there is a slot for them:"
        " as many as are going to end while the scheduler is away. Each starts when a slot becomes free; until then it"
        " can be overtaken and revoked. 0: every free slot waits for the scheduler's next loop.\n",
    ),
    "local_preload": _option(
        "string",
        "",
        "pandas,my_company.operators",
        "Modules, separated by commas, that the LocalExecutor's template process imports once, so that every"
        " task finds them there.\n",
    ),
    "local_template": _option(
        "string",
        "fork",
        "exec",
        "How the LocalExecutor makes its template process: ``fork`` shares the memory of the scheduler,"
        " ``exec`` starts a fresh interpreter.\n",
    ),
    "local_warm_dags": _option(
        "integer",
        "0",
        "8",
        "How many Dag files, at most, the LocalExecutor parses once for all of their tasks, each in a template process"
        " of its own, which it needs memory for. 0: every task parses its file, as in Airflow. Linux only.\n",
    ),
    "celery_warm_dags": _option(
        "integer",
        "0",
        "8",
        "How many Dag files, at most, a Celery worker parses once for all of their tasks, each in a template process"
        " of its own, which it needs memory for. Read by workers whose ``[celery] extra_celery_config`` imports"
        " ``airflow_dispatch_provider.celery_worker.warm``. 0: every task parses its file, as in Airflow. Linux"
        " only.\n",
    ),
    "celery_max_unsent": _option(
        "integer",
        "250",
        "1000",
        "How many workloads the CeleryExecutor has on their way to the broker at most. The others are held,"
        " where a task of higher priority overtakes them.\n",
    ),
    "kubernetes_max_unsent": _option(
        "integer",
        "250",
        "1000",
        "How many workloads the KubernetesExecutor has on their way to the API server at most. The others are held,"
        " and a task of higher priority overtakes them.\n",
    ),
    "kubernetes_concurrency": _option(
        "integer",
        "32",
        "8",
        "How many requests of one kind (create, delete) the KubernetesExecutor makes at a time.\n",
    ),
    "launch_retries": _option(
        "integer",
        "10",
        "3",
        "How often a job is launched again that came to nothing before it began, whatever its backend: after 1, 2, 4"
        " and at most 60 seconds. Then it fails, with the reason. With the default that is after about five minutes.\n",
    ),
}

CONFIG: dict[str, Any] = {
    SECTION: {
        "description": "Backends and routes of the DispatchExecutor, and the executors of"
        " airflow-dispatch-provider.\n",
        "options": OPTIONS,
    }
}
