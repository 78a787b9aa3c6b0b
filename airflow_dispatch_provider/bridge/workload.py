# SPDX-License-Identifier: Apache-2.0
"""Reading a workload, and changing it for its backend: always on a copy made
with ``model_copy``, since a trip through JSON loses ``executor_config`` and ``external_executor_id``."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

from airflow.configuration import conf

from airflow_dispatch_provider.bridge.airflow_api import is_task, kind_of
from airflow_dispatch_provider.bridge.patience import queued_timeout
from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.routing.model import EXECUTE_CALLBACK, EXECUTE_TASK, TaskRef
from airflow_dispatch_provider.routing.routes import task_seed


def task_ref(workload: Any, executor: str | None = None) -> TaskRef:
    """The workload as routing sees it.

    :param executor: name of the executor that it asks for
    """
    kind = kind_of(workload)
    if kind == EXECUTE_TASK:
        ti = workload.ti
        index = getattr(ti, "map_index", None)
        seed = task_seed(ti.dag_id, ti.run_id, ti.task_id, -1 if index is None else index)
        return TaskRef(ti.queue, ti.dag_id, seed, kind, executor)
    if kind == EXECUTE_CALLBACK:
        data = workload.callback.data
        return TaskRef(data.get("queue"), data.get("dag_id") or "", str(workload.callback.id), kind, executor)
    return TaskRef(workload.queue, "", str(workload.connection_test_id), kind, executor)


def task_ref_of(ti: Any) -> TaskRef:
    """A task instance of the database as routing sees it."""
    seed = task_seed(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
    return TaskRef(ti.queue, ti.dag_id, seed, executor=ti.executor)


def priority_of(workload: Any) -> int:
    """``priority_weight`` of a task; callbacks and connection tests have none."""
    ti = getattr(workload, "ti", None)
    return int(ti.priority_weight) if ti is not None else 0


def token_lifetime() -> float:
    """Seconds for which the token of a queued workload is valid."""
    if AIRFLOW_V_3_2_PLUS:
        return queued_timeout()
    return conf.getfloat("execution_api", "jwt_expiration_time")


def with_new_token(workload: Any, generator: Any) -> Any:
    """A copy whose token is valid from now on; the same workload where it has no token."""
    if not workload.token:
        return workload
    subject = _subject(workload)
    if AIRFLOW_V_3_2_PLUS:
        token = type(workload).generate_token(subject, generator)
    else:
        token = generator.generate({"sub": subject})
    return workload.model_copy(update={"token": token})


def with_fresh_token(workload: Any, generator: Callable[[], Any], age: float) -> Any:
    """The same workload where its token was made at most ``age`` seconds ago, or where it has none, else a copy with a
    new one: making one costs far more than reading when it was made.

    :param generator: gives the executor's ``jwt_generator``
    """
    if not workload.token:
        return workload
    made = _made(workload.token)
    is_fresh = made is not None and 0 <= time.time() - made <= age
    return workload if is_fresh else with_new_token(workload, generator())


def _made(token: str) -> float | None:
    """``iat`` of a JWT (POSIX seconds); nothing else of it is looked at."""
    try:
        payload = token.split(".")[1]
        return float(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iat"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def copy_of(workload: Any) -> Any:
    """A copy that code of others may change, down to its task instance."""
    return workload.model_copy(update={"ti": workload.ti.model_copy()} if is_task(workload) else None)


def without_id(workload: Any) -> Any:
    """A copy without ``external_executor_id``; the same workload where it has none."""
    ti = getattr(workload, "ti", None)
    if getattr(ti, "external_executor_id", None) is None:
        return workload
    return workload.model_copy(update={"ti": workload.ti.model_copy(update={"external_executor_id": None})})


def for_backend(workload: Any, executor: Any, queue: str | None) -> Any:
    """The workload as its backend should see it: its queue there, its Sentry integration, and an id for the
    outside world only where that executor uses such ids."""
    changes: dict[str, Any] = {}
    has = getattr(workload, "sentry_integration", None)
    wants = getattr(executor, "sentry_integration", "")
    if has is not None and has != wants:
        changes["sentry_integration"] = wants
    ti = getattr(workload, "ti", None)
    if ti is not None:
        ti_changes = _ti_changes(ti, executor, queue)
        if ti_changes:
            changes["ti"] = workload.ti.model_copy(update=ti_changes)
    elif queue is not None:
        changes.update(_queue_change(workload, queue))
    return workload.model_copy(update=changes) if changes else workload


def _ti_changes(ti: Any, executor: Any, queue: str | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if queue is not None and ti.queue != queue:
        changes["queue"] = queue
    has_id = getattr(ti, "external_executor_id", None) is not None
    if has_id and not getattr(executor, "pre_assigns_external_executor_id", False):
        changes["external_executor_id"] = None
    return changes


def _queue_change(workload: Any, queue: str) -> dict[str, Any]:
    if kind_of(workload) != EXECUTE_CALLBACK:
        return {"queue": queue}
    callback = workload.callback
    return {"callback": callback.model_copy(update={"data": {**callback.data, "queue": queue}})}


def _subject(workload: Any) -> str:
    if is_task(workload):
        return str(workload.ti.id)
    callback = getattr(workload, "callback", None)
    return str(callback.id if callback is not None else workload.connection_test_id)
