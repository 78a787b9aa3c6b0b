# SPDX-License-Identifier: Apache-2.0
"""What stands in a backend's ``config`` and in its environment variables, checked before anything starts."""
