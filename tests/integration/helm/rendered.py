# SPDX-License-Identifier: Apache-2.0
"""The manifests that helm has made, and questions to them. The same for every chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from typing import Any

import yaml

Manifest = dict[str, Any]
EXECUTOR = "AIRFLOW__CORE__EXECUTOR"
COMPONENTS = ("scheduler", "api-server", "dag-processor", "triggerer", "run-airflow-migrations", "worker")
"""The containers that read Airflow's configuration. A worker is there only where a backend is Celery."""

_LOG_PORT = 8793


@dataclass(frozen=True)
class Rendered:
    """The manifests that ``helm template`` has printed."""

    manifests: tuple[Manifest, ...]

    @property
    def scheduler_launches(self) -> bool:
        """Whether the scheduler's account may create pods."""
        return self.account("scheduler") in self._subjects("pod-launcher-rolebinding")

    @property
    def scheduler_has_dags(self) -> bool:
        """Whether tasks that run beside the scheduler find their Dags, and their logs can be read there."""
        container = self.container("scheduler")
        mounted = any(mount["name"] == "dags" for mount in container["volumeMounts"])
        ports = [port["containerPort"] for port in container.get("ports", ())]
        return mounted and _LOG_PORT in ports

    @property
    def scheduler_log_service(self) -> bool:
        services = self._labelled("Service", "scheduler")
        return any(port["port"] == _LOG_PORT for service in services for port in service["spec"]["ports"])

    @property
    def scheduler_log_policy(self) -> bool:
        """Whether the scheduler's network policy lets the API server fetch logs."""
        policies = self._named("NetworkPolicy", "scheduler-policy")
        return any(policy["spec"].get("ingress") for policy in policies)

    @property
    def workers(self) -> bool:
        """Whether there are Celery workers and a Redis."""
        there = {bool(self.fleets), bool(self._labelled("StatefulSet", "redis"))}
        assert len(there) == 1, "workers without Redis, or Redis without workers"
        return there.pop()

    @property
    def pod_template(self) -> bool:
        return "pod_template_file.yaml" in self.configuration

    @property
    def configuration(self) -> dict[str, str]:
        """The files in the ConfigMap with ``airflow.cfg``."""
        (found,) = (each["data"] for each in self._of("ConfigMap") if "airflow.cfg" in each.get("data", {}))
        return found

    @property
    def airflow_cfg(self) -> ConfigParser:
        parser = ConfigParser(interpolation=None)
        parser.read_string(self.configuration["airflow.cfg"])
        return parser

    @property
    def pod(self) -> Manifest:
        """The template of task pods."""
        found: Manifest = yaml.safe_load(self.configuration["pod_template_file.yaml"])
        return found

    @property
    def fleets(self) -> dict[str, Manifest]:
        """The container of each group of Celery workers, by the name of its workload."""
        pods = self._workloads("worker")
        return {name: next(c for c in pod["containers"] if c["name"] == "worker") for name, pod in pods}

    @property
    def keda_query(self) -> str:
        (scaled,) = self._of("ScaledObject")
        query: str = scaled["spec"]["triggers"][0]["metadata"]["query"]
        return query

    def config_map(self, name: str) -> Manifest:
        (found,) = (each for each in self._of("ConfigMap") if each["metadata"]["name"] == name)
        return found

    def container(self, component: str) -> Manifest:
        """The main container of a component."""
        ((_, pod),) = self._workloads(component)
        found: Manifest = pod["containers"][0]
        return found

    def containers(self) -> Iterator[tuple[str, Manifest]]:
        """Each container that reads Airflow's configuration, with the name of its component."""
        for component in COMPONENTS:
            for _, pod in self._workloads(component):
                yield component, next(c for c in pod["containers"] if c["name"] == component)

    def account(self, component: str) -> str:
        ((_, pod),) = self._workloads(component)
        found: str = pod["serviceAccountName"]
        return found

    def launcher_rules(self) -> list[Manifest]:
        (role,) = self._named("Role", "pod-launcher-role")
        rules: list[Manifest] = role["rules"]
        return rules

    def volumes(self, component: str) -> dict[str, Manifest]:
        ((_, pod),) = self._workloads(component)
        return {volume["name"]: volume for volume in pod["volumes"]}

    def _workloads(self, component: str) -> list[tuple[str, Manifest]]:
        kinds = ("Deployment", "StatefulSet", "Job")
        found = [each for kind in kinds for each in self._labelled(kind, component)]
        return [(each["metadata"]["name"], each["spec"]["template"]["spec"]) for each in found]

    def _subjects(self, binding: str) -> set[str]:
        return {
            subject["name"]
            for each in self._named("RoleBinding", binding)
            for subject in each["subjects"] or ()
        }

    def _labelled(self, kind: str, component: str) -> list[Manifest]:
        return [each for each in self._of(kind) if _component(each) == component]

    def _named(self, kind: str, suffix: str) -> list[Manifest]:
        return [each for each in self._of(kind) if each["metadata"]["name"].endswith(f"-{suffix}")]

    def _of(self, kind: str) -> Iterator[Manifest]:
        return (each for each in self.manifests if each["kind"] == kind)


def variables(container: Manifest) -> dict[str, Any]:
    """The environment of a container, as Kubernetes makes it: of two variables with one name the last one counts."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def twice(container: Manifest) -> set[str]:
    """The names that stand more than once in the environment of a container."""
    names: Sequence[str] = [each["name"] for each in container["env"]]
    return {name for name in names if names.count(name) > 1}


def _component(manifest: Manifest) -> str | None:
    found: str | None = manifest["metadata"].get("labels", {}).get("component")
    return found
