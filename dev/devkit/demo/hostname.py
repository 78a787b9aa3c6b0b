# SPDX-License-Identifier: Apache-2.0
"""Names the demo's Celery workers, which all are on this machine, in what Airflow records about a task."""

import os


def hostname() -> str:
    """For ``[core] hostname_callable`` of a worker: the worker's own name."""
    return os.environ["DISPATCH_DEMO_WORKER"]
