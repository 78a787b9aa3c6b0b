# SPDX-License-Identifier: Apache-2.0
"""How workloads become process trees on this machine. Nothing in here knows an Airflow version."""
