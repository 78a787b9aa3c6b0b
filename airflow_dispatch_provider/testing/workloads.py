# SPDX-License-Identifier: Apache-2.0
"""Real workloads of the installed Airflow, made without a database."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from airflow.executors import workloads

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS

_number = count(1)
_api: Any = workloads
"""Untyped: the classes differ between the Airflow versions."""


def make_task(
    queue: str = "default",
    *,
    priority: int = 1,
    dag_id: str = "a_dag",
    task_id: str | None = None,
    run_id: str = "a_run",
    map_index: int = -1,
    try_number: int = 1,
    id: UUID | None = None,
    token: str = "",
    **ti_fields: Any,
) -> Any:
    """An ``ExecuteTask``; every call makes another task unless ``task_id`` is given."""
    ti = _api.TaskInstance(
        id=id or uuid4(),
        dag_version_id=uuid4(),
        task_id=task_id or f"task_{next(_number)}",
        dag_id=dag_id,
        run_id=run_id,
        try_number=try_number,
        map_index=map_index,
        pool_slots=1,
        queue=queue,
        priority_weight=priority,
        **ti_fields,
    )
    return _api.ExecuteTask(ti=ti, token=token, **_bundle())


def make_callback(queue: str | None = None) -> Any:
    """An ``ExecuteCallback`` (Airflow 3.2 and later)."""
    if not AIRFLOW_V_3_2_PLUS:
        raise NotImplementedError("Airflow has callbacks since 3.2")
    data = {"path": "some.callback", "kwargs": {}, **({"queue": queue} if queue else {})}
    callback = {"id": str(uuid4()), "fetch_method": "import_path", "data": data}
    return _api.ExecuteCallback(callback=callback, token="", **_bundle())


def make_connection_test(queue: str | None = None) -> Any:
    """A ``TestConnection`` (Airflow 3.3 and later)."""
    if not AIRFLOW_V_3_3_PLUS:
        raise NotImplementedError("Airflow has connection tests since 3.3")
    return _api.TestConnection(
        connection_test_id=uuid4(), connection_id="a_connection", timeout=60, queue=queue, token=""
    )


def _bundle() -> dict[str, Any]:
    info = _api.BundleInfo(name="a_bundle", version=None)
    return {"dag_rel_path": Path("a_dag.py"), "bundle_info": info, "log_path": None}
