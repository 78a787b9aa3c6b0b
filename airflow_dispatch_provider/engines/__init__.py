# SPDX-License-Identifier: Apache-2.0
"""How jobs run: one package for each kind of engine, and what they share. Engines do not know each other."""
