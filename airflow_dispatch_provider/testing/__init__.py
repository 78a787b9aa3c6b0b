# SPDX-License-Identifier: Apache-2.0
"""For tests, ours and yours: an executor that runs nothing, and workloads made by hand.

``airflow_dispatch_provider.testing.fixtures`` has pytest fixtures around them; name it in ``pytest_plugins``.
"""

from airflow_dispatch_provider.testing.in_memory import InMemoryExecutor
from airflow_dispatch_provider.testing.workloads import make_callback, make_connection_test, make_task

__all__ = ["InMemoryExecutor", "make_callback", "make_connection_test", "make_task"]
