# SPDX-License-Identifier: Apache-2.0
"""A Dag whose tasks name executors; copied into the cluster under test."""

from airflow.sdk import dag, task


@task
def nothing() -> None:
    pass


@dag(schedule=None, catchup=False)
def naming() -> None:
    nothing.override(task_id="names-none")()
    nothing.override(task_id="names-local", executor="LocalExecutor")()
    nothing.override(task_id="names-celery", executor="CeleryExecutor", queue="for-local")()
    nothing.override(task_id="queue-for-local", queue="for-local")()


naming()
