# SPDX-License-Identifier: Apache-2.0
"""The life of a job, from the moment it is queued until Airflow has been told how it ended. Pure."""
