# SPDX-License-Identifier: Apache-2.0
"""Where the project is published."""

from __future__ import annotations

from pathlib import Path

import tomllib

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def project_url() -> str:
    """Its home page in ``pyproject.toml``; the address that README and quickstart clone from."""
    urls = tomllib.loads(_PYPROJECT.read_text())["project"].get("urls", {})
    return str(urls.get("Homepage", "https://github.com/airflow-dispatch/airflow-dispatch-provider"))
