# SPDX-License-Identifier: Apache-2.0
"""``./dev/bench chaos`` by a name of its own."""

from __future__ import annotations

import argparse
import sys

from devkit.arguments import add_airflow_version
from devkit.bench import command


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_airflow_version(parser)
    options, arguments = parser.parse_known_args()
    sys.argv = ["./dev/bench", "--airflow-version", options.airflow_version, "chaos", *arguments]
    return command.main()
