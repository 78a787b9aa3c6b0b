# SPDX-License-Identifier: Apache-2.0
"""Executors for Apache Airflow that choose a backend for every task by its queue."""

__version__ = "0.1.0"
