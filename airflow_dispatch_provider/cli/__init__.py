# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch ...``: what is configured, whether it is right, and where a task would go."""

import logging

# Airflow 3.2 logs to stdout, and Alembic logs when a command imports it: that would stand before the JSON.
logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
