# SPDX-License-Identifier: Apache-2.0
"""Make or update the environment for an Airflow version, and print its folder."""

from __future__ import annotations

from devkit.arguments import add_airflow_version, parser_of
from devkit.environment import ensure


def main() -> int:
    parser = parser_of("./dev/env", __doc__, epilog='Example: "$(./dev/env)/bin/mypy"')
    add_airflow_version(parser)
    print(ensure(parser.parse_args().airflow_version).parents[1])
    return 0
