# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow with two schedulers and every kind of backend behind the router: a LocalExecutor, two CeleryExecutors
with a broker, a result backend and a worker each, and two KubernetesExecutors with an API server and a node each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import redis

from devkit.deployments.kubernetes import ClusterDeployment
from devkit.deployments.outages import ROUTER, Wait
from devkit.deployments.two_schedulers import SCHEDULERS, Backends, TwoSchedulers
from devkit.environment import variables_of
from devkit.servers.postgres import PostgresServer
from devkit.servers.valkey import ValkeyServer

CELERY = ("one", "two")
SLOTS = {"local": 3, "one": 4, "two": 4, "near": 3, "far": 3}
PROCESSES = 3
"""Pods that a node runs at a time."""

Routing = dict[str, Any]
"""The contents of the routing file."""


class Everything(TwoSchedulers, ClusterDeployment):
    """All tasks but those in pods are run as Airflow has it.

    :param stack: takes down what was started
    """

    def __init__(
        self,
        home: Path,
        postgres: PostgresServer,
        settings: Mapping[str, str],
        stack: ExitStack,
        runs: int,
        tasks: int,
        wait: Wait,
    ) -> None:
        self._stack = stack
        self.brokers, self.results = (
            {name: stack.enter_context(ValkeyServer(appendonly=True)) for name in CELERY} for _ in range(2)
        )
        self.start_clusters(stack)
        home.mkdir()
        self._file = home / "routing.json"
        self.routing: Routing = self._routing(home)
        self._write(self.routing)
        celery = {name: variables_of({"celery": self._celery(name)}) for name in CELERY}
        env = {"AIRFLOW__CORE__EXECUTOR": ROUTER, "AIRFLOW__DISPATCH__CONFIG_FILE": str(self._file)}
        backends = Backends(SLOTS, env, celery)
        super().__init__(home, postgres, dict(settings), backends, runs, tasks, wait)

    def start(self) -> None:
        super().start()
        self.start_nodes(self._stack, PROCESSES, CHAOS_QUEUES=",".join(SLOTS))

    # Configuration

    def _routing(self, folder: Path) -> Routing:
        backends: dict[str, Any] = {"local": {"executor": "LocalExecutor"}}
        for name in CELERY:
            backends[name] = {"executor": "CeleryExecutor", "config": {"celery": self._celery(name)}}
        for name, config in self.cluster_options(folder).items():
            backends[name] = {"executor": "KubernetesExecutor", "config": {"kubernetes_executor": config}}
        return {
            "backends": {name: {**backend, "slots": SLOTS[name]} for name, backend in backends.items()},
            "routes": [{"queue": name, "to": [name]} for name in backends],
            "default": "local",
        }

    def _celery(self, name: str) -> dict[str, str]:
        return {"broker_url": self.brokers[name].url(), "result_backend": self.results[name].url()}

    def _write(self, routing: Routing) -> None:
        """In one step: a scheduler may read it at any time."""
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(routing, indent=1))
        new.replace(self._file)

    # Outages

    def reconfigure(self, change: Callable[[Routing], object], seconds: float) -> None:
        """Change the routing file for a while."""
        with self.outages.note("configuration changed"):
            changed = deepcopy(self.routing)
            change(changed)
            self._write(changed)
            self.wait(seconds)
            self._write(self.routing)

    def roll(self, seconds: float) -> None:
        """SIGTERM to one scheduler after the other, and a new start."""
        for name in SCHEDULERS:
            with self.outages.note("scheduler restarted"):
                if not self.airflow.has_ended(name):
                    self.airflow.stop_component(name)
                self.airflow.start_scheduler(name)
                self.wait(seconds)

    # What is left when all has ended

    def left(self) -> dict[str, int]:
        """Messages in the queues of the brokers, pods, and slots of the schedulers that run."""
        return {"messages": self._messages(), "pods": self.pods_left(), "slots": self._slots()}

    def _messages(self) -> int:
        found = 0
        for name, broker in self.brokers.items():
            with redis.Redis.from_url(broker.url()) as client:
                found += int(client.llen(name))
        return found

    def _slots(self) -> int:
        """As their last heartbeats said."""
        beats = [self.beats_of(self.airflow.pid(name)) for name in SCHEDULERS]
        return sum(each[-1][2] for each in beats if each)
