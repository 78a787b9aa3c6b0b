# SPDX-License-Identifier: Apache-2.0
"""Make or update the environment for an Airflow version, and print its folder."""

from __future__ import annotations

import argparse

from devkit.environment import add_airflow_version, ensure


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev/env", description=__doc__, epilog='Example: "$(./dev/env)/bin/mypy"'
    )
    add_airflow_version(parser)
    print(ensure(parser.parse_args().airflow_version).parents[1])
    return 0
