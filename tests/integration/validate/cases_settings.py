# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from .harness import airflow_cfg, case

CASES = [
    case(
        "default misspelt",
        "aa",
        "[dispatch] default",
        'found the backend "aa", which is not configured.',
        "$1",
        cfg=airflow_cfg(default="<>"),
    ),
    case(
        "max_held zero",
        "0",
        "[dispatch] max_held",
        "found 0",
        "$e",
        cfg=airflow_cfg(more="max_held = <>"),
    ),
]
