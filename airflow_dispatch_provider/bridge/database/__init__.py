# SPDX-License-Identifier: Apache-2.0
"""Tables of this package in Airflow's database: status and orders. No dispatch needs them."""
