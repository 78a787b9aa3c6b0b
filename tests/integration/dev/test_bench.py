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


def test_a_real_start_is_taken_apart() -> None:
    """Every part of it takes time, and they add up to what there is until the first line."""
    command = [BENCH, "start", "--runs", "1", "--tasks", "2", "--cases", "1", "--subjects", "local"]
    said = subprocess.run(
        [*command, "--output", "json"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    figures = {row: found["median"] for row, found in json.loads(said)["1"]["local"].items()}
    assert all(value > 0 for value in figures.values())
    assert figures["parse"] < figures["first line"]
    assert figures["cpu parse"] < figures["cpu task"] < figures["cpu"]
