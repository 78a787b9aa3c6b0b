# SPDX-License-Identifier: Apache-2.0
"""Run by Alembic."""

from __future__ import annotations

from typing import Any

from airflow import settings
from alembic import context

from airflow_dispatch_provider.bridge.database.manager import DispatchDBManager

OPTIONS: dict[str, Any] = {
    "target_metadata": DispatchDBManager.metadata,
    "version_table": DispatchDBManager.version_table_name,
    "render_as_batch": True,
}


def offline() -> None:
    """Print statements."""
    context.configure(url=settings.SQL_ALCHEMY_CONN, literal_binds=True, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def online() -> None:
    """Change the database."""
    assert settings.engine is not None
    with settings.engine.connect() as connection:
        context.configure(connection=connection, **OPTIONS)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    offline()
else:
    online()
