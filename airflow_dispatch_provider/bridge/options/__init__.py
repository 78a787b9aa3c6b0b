# SPDX-License-Identifier: Apache-2.0
"""The executor classes, and what they share."""
