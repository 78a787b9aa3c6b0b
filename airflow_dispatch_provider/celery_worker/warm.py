# SPDX-License-Identifier: Apache-2.0
"""
Forks the tasks of a Celery worker from processes that have parsed their Dag files.

Workers import this module where ``[celery] extra_celery_config`` lists it under ``imports``. With ``[dispatch]
celery_warm_dags``, the worker's main process then forks a template process before it forks its pool, and Airflow's
Celery task gets a body that asks this process first.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import Any

from airflow.configuration import conf
from celery.concurrency.prefork import TaskPool
from celery.signals import celeryd_after_setup, worker_process_init

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.celery_worker.asking import WarmBody
from airflow_dispatch_provider.celery_worker.template import TemplateProcess
from airflow_dispatch_provider.engines.celery.message import TASK_NAME
from airflow_dispatch_provider.engines.local.children import can_end_with_peer
from airflow_dispatch_provider.engines.local.launch import obstacle_to_fork

log = logging.getLogger(__name__)

LOOKED_AFTER = 5.0
"""Seconds between two looks whether the template process lives."""


def prepare(sender: Any, instance: Any, **_: Any) -> None:
    """Called by Celery in the worker's main process, when its logging is set up and its pool has no processes yet.

    :param instance: the worker
    """
    most = conf.getint("dispatch", "celery_warm_dags", fallback=0)
    if most <= 0:
        return
    if reason := obstacle(instance):
        log.warning("Tasks of this worker parse their Dag files themselves, because %s", reason)
        return
    task = instance.app.tasks[TASK_NAME]
    template = TemplateProcess(most, task, partial(airflow_api.warm_up, conf))
    template.start()
    task.run = WarmBody(template.address, task)
    if instance.use_eventloop:  # else its timer is a thread, from which nothing can be forked
        instance.timer.call_repeatedly(LOOKED_AFTER, template.keep)


celeryd_after_setup.connect(prepare)


def obstacle(worker: Any) -> str | None:
    """Why a process would not be as good as one of the worker's pool; None: it is."""
    if sys.platform != "linux" or not can_end_with_peer():
        return "that needs Linux"
    if not issubclass(worker.pool_cls, TaskPool):
        return "its pool is not prefork"
    if worker_process_init.receivers:
        return "functions are connected to Celery's signal worker_process_init"
    return obstacle_to_fork()
