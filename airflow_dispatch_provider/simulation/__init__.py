# SPDX-License-Identifier: Apache-2.0
"""The real life cycle and dispatch loop in virtual time, under faults, between models of all that is around them."""
