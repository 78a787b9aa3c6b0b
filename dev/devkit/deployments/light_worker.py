# SPDX-License-Identifier: Apache-2.0
"""Makes the processes of an ``airflow celery worker`` run each task themselves, in place of Airflow's supervisor.

Copied to ``airflow_local_settings.py`` on the worker's PYTHONPATH, which every ``airflow`` imports.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

from celery.signals import worker_process_init

from devkit.deployments import light_task


@worker_process_init.connect  # type: ignore[untyped-decorator]
def replace_supervisor(**_: Any) -> None:
    from airflow.sdk.execution_time import supervisor

    for name in ("supervise", "supervise_task"):  # the older name, and that of Airflow 3.3 and later
        if hasattr(supervisor, name):
            setattr(supervisor, name, run)


def run(*, ti: Any, token: str, server: str, **_: Any) -> int:
    from airflow.sdk.exceptions import TaskAlreadyRunningError

    started = time.time()
    try:
        context, token = light_task.begin(server, token, str(ti.id))
    except light_task.AlreadyRunning as error:
        raise TaskAlreadyRunningError(str(error)) from error
    number = context["dag_run"]["conf"]["first"] + ti.map_index
    trace = Path(os.environ["CHAOS_RECORDS"]) / f"{number}.{uuid.uuid4().hex}"
    trace.with_suffix(f"{trace.suffix}.start").touch()
    trace.with_suffix(f"{trace.suffix}.end").write_text(
        f"{os.environ['CHAOS_WORKER']} {started} {time.time()}"
    )
    light_task.succeed(server, token, str(ti.id))
    return 0
