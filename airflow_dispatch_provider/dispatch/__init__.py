# SPDX-License-Identifier: Apache-2.0
"""The router's loop: backends behind circuits, the ledger, adoption, the routing file."""
