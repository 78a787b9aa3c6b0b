# SPDX-License-Identifier: Apache-2.0
"""``airflow dispatch ...``: what is configured, whether it is right, and where a task would go."""
