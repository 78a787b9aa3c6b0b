# SPDX-License-Identifier: Apache-2.0
"""An executor of this package whose tasks are in no database."""

from __future__ import annotations

from typing import Any

from airflow_dispatch_provider.testing.in_memory_clerk import InMemoryClerk


def without_database(executor: Any) -> None:
    """Before its start: a database that knows none of its tasks would call them ended, and one that has no tables
    nothing at all."""
    executor._make_clerk = lambda limits: InMemoryClerk()
