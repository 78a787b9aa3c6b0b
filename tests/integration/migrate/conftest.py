# SPDX-License-Identifier: Apache-2.0
"""The command is run as in its unit tests."""

from tests.unit.cli.conftest import _no_configuration, configure, run
from tests.unit.cli.migrate.conftest import _no_options, case

__all__ = ["_no_configuration", "_no_options", "case", "configure", "run"]
