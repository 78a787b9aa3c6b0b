# SPDX-License-Identifier: Apache-2.0
"""./dev/simulate as a command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

COMMAND = [Path(__file__).parents[3] / "dev" / "simulate", "--seed", "5", "--faults", "1", "--seconds", "60"]


def test_json_is_all_that_it_prints() -> None:
    """Whatever Airflow says while it is imported; and twice the same."""
    done = [
        subprocess.run([*COMMAND, "--output", "json"], stdout=subprocess.PIPE, text=True, check=True)
        for _ in range(2)
    ]
    assert json.loads(done[0].stdout)["worlds"] >= 1
    assert done[0].stdout == done[1].stdout
