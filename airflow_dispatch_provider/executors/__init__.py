# SPDX-License-Identifier: Apache-2.0
"""The executor classes that users name."""
