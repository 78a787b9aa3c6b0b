# SPDX-License-Identifier: Apache-2.0
"""./dev/bench as a command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

BENCH = Path(__file__).parents[3] / "dev" / "bench"


def test_the_scale_is_measured_for_each_case_that_is_not_too_large() -> None:
    """In JSON, with every figure above nothing."""
    command = [BENCH, "scale", "--jobs", "10000", "--output", "json"]
    rows = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert [(row["jobs"], row["queues"]) for row in rows] == [(10_000, 20), (10_000, 1_000)]
    assert all(value > 0 for row in rows for value in row.values())
