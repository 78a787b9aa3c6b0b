# SPDX-License-Identifier: Apache-2.0
"""Pin everything that an environment holds, per supported Airflow version, into dev/locks/."""

from __future__ import annotations

from devkit.arguments import parser_of
from devkit.environment import ENVIRONMENTS, LOCKS, WITH_FOREIGN_EXECUTORS, lock_file, run_uv, step

# 3.2.2 keeps SQLAlchemy 2.0, as most installations have it; the others take what pip would take. Its API
# server does not start with FastAPI 0.137 or later, which 3.3 excludes itself.
_CONSTRAINTS = {"3.2.2": ["sqlalchemy<2.1", "fastapi<0.137"]}
_EVERYWHERE = ["apache-airflow-providers-standard"]


def main() -> int:
    parser = parser_of("./dev/lock", __doc__)
    parser.add_argument(
        "--airflow-version", choices=ENVIRONMENTS, help="only this version (default: all of them)"
    )
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest versions, not the pinned ones"
    )
    options = parser.parse_args()
    LOCKS.mkdir(exist_ok=True)
    for version in [options.airflow_version] if options.airflow_version else ENVIRONMENTS:
        with step(f"Locking for Airflow {version}"):
            _lock(version, options.upgrade)
    return 0


def _lock(environment: str, upgrade: bool) -> None:
    version = environment.partition("-")[0]
    # The core is named too: a pre-release is only taken where it is asked for by name.
    airflow = [f"apache-airflow=={version}", f"apache-airflow-core=={version}"]
    requirements = [*airflow, *_EVERYWHERE, *_CONSTRAINTS.get(version, [])]
    arguments = ["pip", "compile", "pyproject.toml", "-", "--all-extras", "--group", "dev"]
    if environment == WITH_FOREIGN_EXECUTORS:
        arguments += ["--group", "foreign-executors"]
    # One file for every Python from 3.11 on, with one version of each package: markers say what is for some only.
    arguments += ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
    arguments += ["--quiet", "--annotation-style", "line"]
    arguments += ["--custom-compile-command", f"./dev/lock --airflow-version {environment}"]
    arguments += ["--output-file", str(lock_file(environment)), *(["--upgrade"] if upgrade else [])]
    run_uv(arguments, stdin="\n".join(requirements))
