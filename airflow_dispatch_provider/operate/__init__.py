# SPDX-License-Identifier: Apache-2.0
"""Status of a running deployment, orders about it, and why a task waits: one answer for commands, REST and page."""
