# SPDX-License-Identifier: Apache-2.0
"""Creates and migrates the tables of this package, when ``airflow db migrate`` runs. Found through the provider
metadata from Airflow 3.2 on; on 3.1 ``[database] external_db_managers`` names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.utils.db_manager import BaseDBManager

from airflow_dispatch_provider.bridge.database.tables import METADATA

_HERE = Path(__file__).parent


class DispatchDBManager(BaseDBManager):
    """See the module."""

    metadata = METADATA
    version_table_name = "alembic_version_dispatch"
    migration_dir = (_HERE / "migrations").as_posix()
    alembic_file = (_HERE / "alembic.ini").as_posix()
    supports_table_dropping = True
    revision_heads_map = {"0.1.0": "d1a5c0e7f001"}  # noqa: RUF012 - as the base class declares it

    def downgrade(
        self, to_revision: str, from_revision: str | None = None, show_sql_only: bool = False
    ) -> None:
        """Called by ``airflow db-manager downgrade``."""
        from alembic import command

        revision = f"{from_revision}:{to_revision}" if from_revision else to_revision
        base: Any = self
        command.downgrade(base.get_alembic_config(), revision, sql=show_sql_only)
