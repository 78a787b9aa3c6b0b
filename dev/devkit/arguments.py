# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands have."""

from __future__ import annotations

import argparse

from devkit.environment import AIRFLOW_VERSIONS, DEFAULT_AIRFLOW_VERSION


def parser_of(
    prog: str, description: str | None, epilog: str | None = None, usage: str | None = None
) -> argparse.ArgumentParser:
    """A parser whose help keeps the lines of these texts."""
    return argparse.ArgumentParser(
        prog=prog,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_airflow_version(parser: argparse.ArgumentParser) -> None:
    """The option that most commands have."""
    parser.add_argument(
        "--airflow-version",
        choices=AIRFLOW_VERSIONS,
        default=DEFAULT_AIRFLOW_VERSION,
        help="default: %(default)s",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=("table", "json"), default="table", help="default: %(default)s")
