# SPDX-License-Identifier: Apache-2.0
"""Version gates, each a named constant: the only place that compares Airflow versions."""

from __future__ import annotations

import logging
from functools import cache

from airflow import __version__ as airflow_version
from packaging.version import Version

# Pre-releases belong to the release that they precede: 3.4.0b2 counts as 3.4.
_BASE = Version(Version(airflow_version).base_version)

AIRFLOW_V_3_2_PLUS: bool = Version("3.2.0") <= _BASE
AIRFLOW_V_3_3_PLUS: bool = Version("3.3.0") <= _BASE
AIRFLOW_V_3_4_PLUS: bool = Version("3.4.0") <= _BASE

OLDEST_TESTED, NEWEST_TESTED = "3.1", "3.4"
"""Minor versions of Airflow; those between are tested, too."""

UNTESTED_REMEDY = (
    "Look for a newer version of airflow-dispatch-provider, or try it where nothing depends on it."
)


def untested(version: str = airflow_version) -> str | None:
    """A warning about an Airflow version that is newer than those that this package has been tested with, in one
    sentence; None for the others."""
    base = Version(Version(version).base_version)
    if base.release[:2] <= Version(NEWEST_TESTED).release:
        return None
    return (
        f"Airflow {version} has not been tested with this version of airflow-dispatch-provider, which knows"
        f" {OLDEST_TESTED} to {NEWEST_TESTED}: sending tasks, adoption, revoking, logs of running tasks and callbacks"
        " may not work."
    )


@cache
def warn_if_untested() -> None:
    """Log that once in a process; executors call it when they start."""
    if words := untested():
        logging.getLogger(__name__).warning("%s %s", words, UNTESTED_REMEDY)
