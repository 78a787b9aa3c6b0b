# SPDX-License-Identifier: Apache-2.0
"""The ``[dispatch]`` section: declared once, parsed into frozen values, every mistake reported at once."""
