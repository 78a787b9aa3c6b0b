# SPDX-License-Identifier: Apache-2.0
"""Queues and executors that the Dags in the metadata database name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow.models.dag import DagModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from airflow_dispatch_provider.exceptions import MigrationError
from airflow_dispatch_provider.migration.uses import Scan, Unread, Use


def scan_database() -> Scan:
    """The newest version of every Dag that is not stale, paused ones included; raises MigrationError where there is no
    database to read. One that cannot be deserialized is something unread."""
    uses: list[Use] = []
    unread: list[Unread] = []
    count = 0
    try:
        with create_session() as session:
            for dag_id in session.scalars(select(DagModel.dag_id).where(~DagModel.is_stale)).all():
                count += 1
                try:
                    row = SerializedDagModel.get(dag_id, session=session)
                    uses += _uses(dag_id, row.dag.tasks if row is not None else ())
                except SQLAlchemyError:
                    raise
                except Exception as error:
                    unread.append(Unread(dag_id, f"cannot be deserialized ({type(error).__name__})"))
    except SQLAlchemyError as error:
        raise MigrationError(
            f"The metadata database cannot be read ({type(error).__name__}). See whether `airflow db check` works, or"
            " give a folder of Dags: --dags FOLDER."
        ) from None
    what = f"{count} serialized Dag{'' if count == 1 else 's'} in the metadata database"
    return Scan(what, True, tuple(sorted(uses, key=lambda use: use.where)), tuple(unread))


def _uses(dag_id: str, tasks: Any) -> Iterator[Use]:
    """Tasks of the default queue without executor say nothing of their own, but are listed: a database does not tell a
    queue that was written from one that was not."""
    for task in tasks:
        yield Use(f"{dag_id}.{task.task_id}", task.queue, task.executor)
