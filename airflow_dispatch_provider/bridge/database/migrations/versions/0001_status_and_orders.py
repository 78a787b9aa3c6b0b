# SPDX-License-Identifier: Apache-2.0
"""The tables of status and orders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from airflow_dispatch_provider.bridge.database.tables import METADATA

SCHEMA = METADATA.schema

revision = "d1a5c0e7f001"
down_revision = None
branch_labels = None
depends_on = None


def _name(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(mysql.VARCHAR(length, collation="utf8mb4_bin"), "mysql")


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql")


def _seconds() -> sa.types.TypeEngine[float]:
    return sa.Float(53).with_variant(mysql.DOUBLE(asdecimal=False), "mysql")


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "dispatch_status",
        sa.Column("scheduler_id", _name(250), primary_key=True),
        sa.Column("team", _name(100), nullable=False),
        sa.Column("written", _seconds(), nullable=False),
        sa.Column("document", _text(), nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "dispatch_order",
        sa.Column("team", _name(100), primary_key=True),
        sa.Column("backend", _name(250), primary_key=True),
        sa.Column("lasts", sa.Boolean(), primary_key=True),
        sa.Column("command", _name(16), nullable=False),
        sa.Column("given_by", _name(250), nullable=False),
        sa.Column("reason", _text(), nullable=False),
        sa.Column("since", _seconds(), nullable=False),
        sa.Column("until", _seconds(), nullable=True),
        schema=SCHEMA,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("dispatch_order", schema=SCHEMA)
    op.drop_table("dispatch_status", schema=SCHEMA)
