# SPDX-License-Identifier: Apache-2.0
"""How workloads travel to Celery's broker and their results come back, each on a thread of its own."""
