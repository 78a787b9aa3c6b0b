# SPDX-License-Identifier: Apache-2.0
"""What happens to a job, from the moment it is queued until Airflow has been told how it ended. Pure."""
