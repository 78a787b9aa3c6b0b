# SPDX-License-Identifier: Apache-2.0
"""Version gates, each a named constant: the only place that compares Airflow versions."""

from __future__ import annotations

from airflow import __version__ as airflow_version
from packaging.version import Version

# Pre-releases belong to the release that they precede: 3.4.0b2 counts as 3.4.
_BASE = Version(Version(airflow_version).base_version)

AIRFLOW_V_3_2_PLUS: bool = Version("3.2.0") <= _BASE
AIRFLOW_V_3_3_PLUS: bool = Version("3.3.0") <= _BASE
AIRFLOW_V_3_4_PLUS: bool = Version("3.4.0") <= _BASE

# 3.2 alone sorts its queue ascending by priority_weight.
AIRFLOW_LOWEST_PRIORITY_FIRST: bool = AIRFLOW_V_3_2_PLUS and not AIRFLOW_V_3_3_PLUS
# 3.3 alone counts waiting connection tests against the slots that they wait for.
AIRFLOW_CONNECTION_TESTS_BLOCK_THEMSELVES: bool = AIRFLOW_V_3_3_PLUS and not AIRFLOW_V_3_4_PLUS
