# SPDX-License-Identifier: Apache-2.0
"""The page of Airflow's UI as ``./dev/page`` builds it. A checkout in which nobody has built it has none."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

BUNDLE = Path(__file__).with_name("page") / "dispatch.js"


def version_of_bundle() -> str | None:
    """A text that changes with the bundle; None where there is none."""
    try:
        return sha256(BUNDLE.read_bytes()).hexdigest()[:12]
    except OSError:
        return None
