# SPDX-License-Identifier: Apache-2.0
"""The configuration that the scheduler's container of a rendered recipe would see, for an Airflow on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kubernetes_files import kubeconfig

from .rendered import Rendered, variables

_SECRETS = {
    "connection": "redis://:near@airflow-redis:6379/0",
    "broker_url": "redis://:far@far:6379/0",
    "result_backend": "db+postgresql+psycopg2://far@far/results",
}
"""The values of the Secrets that the page names, by key."""

# Run there. ``validate`` goes first: it looks at a process that has loaded nothing yet.
_ASK = """
import contextlib, io, json, sys
from airflow.__main__ import main

def ask(*arguments):
    out, code = io.StringIO(), 0
    sys.argv = ["airflow", "dispatch", *arguments]
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue()

code, findings = ask("validate")
print(json.dumps({"code": code, "findings": findings, "backends": ask("backends", "--output", "json")[1]}))
"""


@dataclass(frozen=True)
class Answers:
    """The exit code and output of ``validate``, and the output of ``backends`` as JSON; empty where it failed."""

    code: int
    findings: str
    backends: str


class Deployment:
    """The scheduler's container below a folder: its ConfigMaps and Secrets as files, its variables as they are."""

    def __init__(self, rendered: Rendered, folder: Path) -> None:
        self._home = folder / "opt/airflow"
        self._container = rendered.container("scheduler")
        self._write("pod_templates", rendered.configuration)
        self._mount_volumes(rendered)
        self._write("account", {"own": kubeconfig("https://kubernetes.default.svc", "{token: t}")})
        self._write(".", {"airflow.cfg": rendered.configuration["airflow.cfg"]})

    @cached_property
    def answers(self) -> Answers:
        """Answers of ``airflow dispatch`` there. One process asks for both, since it takes long to load Airflow."""
        command = [sys.executable, "-c", _ASK]
        done = subprocess.run(command, env=self._environ(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return Answers(**json.loads(done.stdout.splitlines()[-1]))

    def _environ(self) -> dict[str, str]:
        """With a kubeconfig in place of the ServiceAccount that a pod has."""
        own = {name: self._value(given) for name, given in variables(self._container).items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        account = {
            "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
            "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": str(self._home / "account" / "own"),
        }
        return {**inherited, **own, **account, "AIRFLOW_HOME": str(self._home)}

    def _value(self, given: str | Mapping[str, Any]) -> str:
        if isinstance(given, str):
            return self._moved(given)
        return _SECRETS.get(given["secretKeyRef"]["key"], "x" * 64)

    def _mount_volumes(self, rendered: Rendered) -> None:
        volumes = rendered.volumes("scheduler")
        for mount in self._container["volumeMounts"]:
            volume = volumes.get(mount["name"], {})
            if "secret" in volume and mount["mountPath"].startswith("/opt/airflow/clusters"):
                self._write("clusters", {"gpu": kubeconfig("https://gpu.example.com", "{token: t}")})
            elif "configMap" in volume and "subPath" not in mount:
                folder = mount["mountPath"].removeprefix("/opt/airflow/")
                self._write(folder, rendered.config_map(volume["configMap"]["name"])["data"])

    def _write(self, folder: str, files: Mapping[str, str]) -> None:
        (self._home / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (self._home / folder / name).write_text(self._moved(text))

    def _moved(self, text: str) -> str:
        return text.replace("/opt/airflow", str(self._home))
