# SPDX-License-Identifier: Apache-2.0
"""Checks of a backend's ``config`` and its environment variables before anything starts."""
