# SPDX-License-Identifier: Apache-2.0
"""Contact with Airflow: versions, keys and states, workloads and tokens, configuration overlays, event log, rows."""
