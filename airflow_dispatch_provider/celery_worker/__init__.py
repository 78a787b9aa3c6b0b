# SPDX-License-Identifier: Apache-2.0
"""Runs in ``airflow celery worker``, where its configuration says so. Nothing of the scheduler's side imports it."""
