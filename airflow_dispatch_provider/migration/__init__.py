# SPDX-License-Identifier: Apache-2.0
"""From a configuration without the router to ``[dispatch]``: reads, plans and writes it down. Pure; changes nothing."""
