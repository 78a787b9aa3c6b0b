# SPDX-License-Identifier: Apache-2.0
"""The charts that the recipes are rendered with: one of our own in the shape of each release of Airflow's chart, and
Airflow's own charts where ``DISPATCH_TEST_AIRFLOW_CHARTS`` names their folders (separated as PATH is)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .rendered import Rendered

HERE = Path(__file__).parent
GIVEN = "DISPATCH_TEST_AIRFLOW_CHARTS"
RELEASE = NAMESPACE = "airflow"

Facts = Mapping[str, Any]
FACTS: Mapping[str, Facts] = yaml.safe_load((HERE / "facts.yaml").read_text())["facts"]

SITE = {
    "airflowVersion": "3.1.8",
    "dags": {"gitSync": {"enabled": True}},
    "networkPolicies": {"enabled": True},
}
"""Values of a deployment that have nothing to do with executors."""


# With libyaml where it is there: a real chart renders to some thousand lines.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """Helm's words about values that a chart does not take."""


@dataclass(frozen=True)
class Chart:
    """A chart, and what is known of its release."""

    name: str
    release: tuple[int, ...]
    facts: Facts
    folder: Path | None = None
    """Of a real one; ours is made where it is used."""

    def __str__(self) -> str:
        return self.name

    def at(self, scratch: Path) -> Path:
        return self.folder or _shaped(self.facts, scratch / self.name)

    def render(self, helm: Path, scratch: Path, *values: Mapping[str, Any]) -> Rendered:
        """Render the chart with these values, of which the last ones count; raises Refused."""
        return _rendered(helm, self.at(scratch), tuple(yaml.safe_dump(each) for each in (SITE, *values)))


@cache
def _rendered(helm: Path, chart: Path, values: tuple[str, ...]) -> Rendered:
    with tempfile.TemporaryDirectory(prefix="dispatch-helm-") as folder:
        command = [str(helm), "template", RELEASE, str(chart), "--namespace", NAMESPACE]
        for number, text in enumerate(values):
            file = Path(folder) / f"values-{number}.yaml"
            file.write_text(text)
            command += ["--values", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return Rendered(tuple(filter(None, yaml.load_all(done.stdout, Loader=_LOADER))))


def charts() -> Iterator[Chart]:
    for version, facts in FACTS.items():
        yield Chart(f"shaped-{version}", _release(version), facts)
    for folder in filter(None, os.environ.get(GIVEN, "").split(os.pathsep)):
        version = yaml.safe_load((Path(folder) / "Chart.yaml").read_text())["version"]
        yield Chart(f"airflow-{version}", _release(version), _known(_release(version)), Path(folder))


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".")[:2])


def _known(release: tuple[int, ...]) -> Facts:
    """The facts of a release, or of the newest one before it."""
    older = [version for version in FACTS if _release(version) <= release]
    assert older, f"no facts about chart {release}, nor about an older one"
    return FACTS[max(older, key=_release)]


def _shaped(facts: Facts, folder: Path) -> Path:
    if not folder.exists():
        shutil.copytree(HERE / "shaped", folder)
        values = yaml.safe_load((folder / "values.yaml").read_text())
        (folder / "values.yaml").write_text(yaml.safe_dump({**values, "facts": dict(facts)}))
        (folder / "values.schema.json").write_text(json.dumps(_schema(facts, values)))
    return folder


def _schema(facts: Facts, values: Mapping[str, Any]) -> Mapping[str, Any]:
    scalar = {"type": ["boolean", "integer", "number", "string"]}
    section = {"type": "object", "additionalProperties": scalar}
    workers = {name: {} for name in (*values["workers"], *(["celery"] if facts["worker_sets"] else []))}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{name: {} for name in [*values, "global"]},
            "executor": {"type": "string", "pattern": facts["accepts"]},
            "config": {"type": "object", "additionalProperties": section},
            "workers": {"type": "object", "additionalProperties": False, "properties": workers},
        },
    }
