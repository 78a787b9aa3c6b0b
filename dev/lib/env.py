# SPDX-License-Identifier: Apache-2.0
"""Make or update the environment for an Airflow version, and print its folder."""

from __future__ import annotations

import argparse

from environment import add_airflow_version, ensure, run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev/env", description=__doc__, epilog='Example: "$(./dev/env)/bin/mypy"'
    )
    add_airflow_version(parser)
    print(ensure(parser.parse_args().airflow_version).parents[1])
    return 0


if __name__ == "__main__":
    run(main)
