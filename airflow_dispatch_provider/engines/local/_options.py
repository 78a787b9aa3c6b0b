# SPDX-License-Identifier: Apache-2.0
"""Options of a local engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_dispatch_provider.bridge.version_compat import AIRFLOW_V_3_2_PLUS
from airflow_dispatch_provider.engines.local.launch import Mode
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem

PRELOAD = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.definitions.decorators",
    "airflow.dag_processing.bundles.local",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.dag_processing.dagbag" if AIRFLOW_V_3_2_PLUS else "airflow.models.dagbag",
    "encodings.idna",
    "jinja2.ext",
)
"""Modules that nearly every task needs: those of the Task SDK, what parses the Dag file (half a second), finds the
address of the API server, and renders templates."""

AHEAD = 64
"""Many more than as many short tasks as a machine can start in two seconds."""

_MODES: dict[str, Mode] = {"fork": "fork", "exec": "exec"}


@dataclass(frozen=True)
class LocalOptions:
    """Checked values."""

    template: Mode = "fork"
    """``[dispatch] local_template``: how the first template process is started, where that is safe."""

    preload: tuple[str, ...] = PRELOAD
    """Modules that the template process imports: ``PRELOAD``, and those of ``[dispatch] local_preload``."""

    ahead: int = AHEAD
    """``[dispatch] local_ahead``: how many workloads, at most, the template process is given before there is a slot for
    them."""

    warm_dags: int = 0
    """``[dispatch] local_warm_dags``: as many Dag files, at most, are parsed once for all of their tasks."""


def local_options(conf: Any, preload: tuple[str, ...] = PRELOAD) -> LocalOptions:
    """
    :param conf: Airflow's configuration, or a backend's overlay of it
    :param preload: modules that the template process imports in any case
    :raises DispatchConfigError: an option makes no sense
    """
    wanted = str(conf.get("dispatch", "local_template", fallback="fork")).strip()
    if wanted not in _MODES:
        raise DispatchConfigError(
            [Problem("[dispatch] local_template", f"{wanted!r} is unknown.", "Use fork or exec.")]
        )
    extra = str(conf.get("dispatch", "local_preload", fallback="") or "")
    names = tuple(name.strip() for name in extra.split(",") if name.strip())
    ahead = max(0, conf.getint("dispatch", "local_ahead", fallback=AHEAD))
    warm_dags = max(0, conf.getint("dispatch", "local_warm_dags", fallback=0))
    return LocalOptions(_MODES[wanted], (*preload, *names), ahead, warm_dags)
