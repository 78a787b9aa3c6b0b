# SPDX-License-Identifier: Apache-2.0
"""The configurations in ``cases``, each in a folder with what the command says of it in ``expected.txt``.

A folder has an ``airflow.cfg``, an ``environment`` with variables, or both; ``dags`` may have Dags.
"""

from __future__ import annotations

from pathlib import Path

CASES = sorted(path for path in (Path(__file__).parent / "cases").iterdir() if path.is_dir())


def arguments(case: Path) -> list[str]:
    """Of ``airflow dispatch migrate``, in the folder."""
    config = ["--config", "airflow.cfg"] if (case / "airflow.cfg").exists() else []
    return [*config, *(["--dags", "dags"] if (case / "dags").exists() else [])]


def variables(case: Path) -> dict[str, str]:
    path = case / "environment"
    pairs = (line.partition("=") for line in (path.read_text().splitlines() if path.exists() else ()))
    return {name: value for name, _, value in pairs}
