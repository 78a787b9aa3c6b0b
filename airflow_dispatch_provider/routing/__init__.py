# SPDX-License-Identifier: Apache-2.0
"""Where a workload goes and why: pure functions and values; no Airflow, no I/O, the clock injected."""
