# SPDX-License-Identifier: Apache-2.0
"""Alembic's environment and revisions for the tables of this package."""
