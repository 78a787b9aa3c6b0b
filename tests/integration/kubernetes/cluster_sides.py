# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes engine on the simulation's cluster, and on a real API server, behind the same few words."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from integration.sides import Engines, VirtualTime
from support import wait_until

from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.lifecycle.events import Room, Stalled
from airflow_dispatch_provider.simulation.cluster import NAMESPACES, QUOTA, Cluster
from airflow_dispatch_provider.simulation.places import KUBERNETES
from airflow_dispatch_provider.simulation.schedulers import Instance, Workload
from airflow_dispatch_provider.simulation.tasks import Task
from airflow_dispatch_provider.testing import make_task
from devkit.servers.kube import KubeServer
from devkit.servers.node_agent import NodeAgent
from devkit.servers.pod_fates import EXIT, IMAGE_PULL_ERROR, UNSCHEDULABLE, Fate

from .engines import HEIR, Hand, pods_of, running
from .executors import options
from .troubles import break_webhook_for, mend_webhook_for, task_with

ENDS_WELL, WAITS, RUNS, NO_IMAGE = "ends well", "waits", "runs", "no image"
"""Fates of pods."""

FATES = {
    ENDS_WELL: Fate(EXIT),
    WAITS: Fate(UNSCHEDULABLE),
    RUNS: Fate(EXIT, after=600),
    NO_IMAGE: Fate(IMAGE_PULL_ERROR),
}


class Side(Protocol):
    """One of the two."""

    namespace: str

    def meet(self, fate: str) -> None:
        """The fate of all pods from now on."""

    def submit(self, number: int = 1) -> list[int]:
        """So many tasks; returns their dispatches."""
        ...

    def submit_spoilt(self) -> int:
        """One that no server takes."""
        ...

    def revoke(self, dispatch: int, over: bool = False) -> None: ...

    def adopt(self, dispatch: int | None) -> int:
        """By another scheduler, what this one was given under that number; None: a task that has no pod. Returns its
        dispatch there."""
        ...

    def hears(self, dispatch: int, kind: type[Any], heir: bool = False) -> list[Any]:
        """All that is said of it, up to the first event of that kind, but for reasons why it waits.

        :param heir: by the other scheduler's engine
        """
        ...

    def wait_until_it_runs(self, dispatch: int) -> None: ...

    def delete_by_hand(self, dispatch: int) -> None:
        """Its pod, the only one."""

    def fill(self) -> int:
        """Let the namespace have a few pods; returns how many."""
        ...

    def refuse(self) -> None:
        """No pod may be created."""

    def mend(self) -> None:
        """Every pod may be created again."""

    def room(self) -> Room: ...

    def pods(self) -> int:
        """How many there are."""
        ...


class ModelSide:
    """See ``Side``."""

    namespace = NAMESPACES[0]

    def __init__(self) -> None:
        self.world = VirtualTime()
        self.cluster = Cluster(self.world, "x", KUBERNETES)
        self.engines = [self.cluster.engine(1000), self.cluster.engine(1000)]
        self.given: dict[int, Task] = {}
        self._both = Engines(self.world, *self.engines)
        self._numbers = count(1)

    def meet(self, fate: str) -> None:
        self.cluster.idle = fate == WAITS
        self.cluster.breaks = fate == NO_IMAGE
        self.world.tasks.api_up = fate != RUNS  # what has ended cannot say so

    def _task(self) -> Task:
        while True:
            task = self.world.queued()
            is_here = self.engines[0].lane(Workload(task, task.id)) == self.namespace
            if is_here and self.cluster.size_of(task) == 1:
                return task

    def submit(self, number: int = 1) -> list[int]:
        return [self._submit(self._task()) for _ in range(number)]

    def submit_spoilt(self) -> int:
        task = self._task()
        task.spoilt_until = float("inf")
        return self._submit(task)

    def _submit(self, task: Task) -> int:
        number = next(self._numbers)
        self.given[number] = task
        self.engines[0].submit([Job(number, task.key, Workload(task, task.id))])
        return number

    def revoke(self, dispatch: int, over: bool = False) -> None:
        self.engines[0].revoke(dispatch, over)

    def adopt(self, dispatch: int | None) -> int:
        task = self._task() if dispatch is None else self.given[dispatch]
        number = next(self._numbers)
        self.engines[1].adopt([Found(number, task.key, Instance(task, task.id), True)])
        return number

    def hears(self, dispatch: int, kind: type[Any], heir: bool = False) -> list[Any]:
        return self._both.hears(dispatch, kind, heir)

    def wait_until_it_runs(self, dispatch: int) -> None:
        task = self.given[dispatch]
        self.world.tasks.api_up = True
        self._both.until(lambda: task.state == "running")
        self.world.tasks.api_up = False
        self._both.turn()

    def delete_by_hand(self, dispatch: int) -> None:
        (pod,) = self.cluster.pods.values()
        self.cluster.delete_by_hand(pod)

    def fill(self) -> int:
        self.cluster.is_small = True
        return QUOTA

    def refuse(self) -> None:
        self.cluster.refuses = True

    def mend(self) -> None:
        self.cluster.is_small = self.cluster.refuses = False
        self._both.until(lambda: not self.room().closed)

    def room(self) -> Room:
        return self.engines[0].room()

    def pods(self) -> int:
        return len(self.cluster.pods)


class KubeSide:
    """See ``Side``."""

    def __init__(self, server: KubeServer, folder: Path, stack: ExitStack) -> None:
        self.server, self.namespace = server, server.create_namespace()
        self._other = server.create_namespace()
        self._fate, self._tasks = Fate(EXIT), dict[int, Any]()
        given = options(server.kubeconfig(), self.namespace, folder)
        given["worker_pod_pending_fatal_container_state_reasons"] = "ErrImagePull"
        # As in the model, there is a namespace that goes on.
        given["multi_namespace_mode"] = "True"
        given["multi_namespace_mode_namespace_list"] = f"{self.namespace},{self._other}"
        agent = NodeAgent(
            server.kubeconfig(), namespaces=[self.namespace], processes=0, decide=lambda pod: self._fate
        )
        stack.enter_context(agent)
        self._hands: list[Hand] = [
            stack.enter_context(running(given)),
            stack.enter_context(running(given, HEIR)),
        ]

    def meet(self, fate: str) -> None:
        self._fate = FATES[fate]

    def submit(self, number: int = 1) -> list[int]:
        return [self._submit(make_task()) for _ in range(number)]

    def submit_spoilt(self) -> int:
        return self._submit(task_with(image="x" * 1_700_000))

    def _submit(self, task: Any) -> int:
        (number,) = self._hands[0].submit(task)
        self._tasks[number] = task
        return number

    def revoke(self, dispatch: int, over: bool = False) -> None:
        self._hands[0].engine.revoke(dispatch, over)

    def adopt(self, dispatch: int | None) -> int:
        task = make_task() if dispatch is None else self._tasks[dispatch]
        (number,) = self._hands[1].adopt(task)
        return number

    def hears(self, dispatch: int, kind: type[Any], heir: bool = False) -> list[Any]:
        hand = self._hands[heir]
        hand.hears(kind, [dispatch])
        return [event for event in hand.said_of(dispatch) if not isinstance(event, Stalled)]

    def wait_until_it_runs(self, dispatch: int) -> None:
        def runs() -> bool:
            return any(pod["status"]["phase"] == "Running" for pod in pods_of(self.server, self.namespace))

        wait_until(runs)

    def delete_by_hand(self, dispatch: int) -> None:
        (pod,) = pods_of(self.server, self.namespace)
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"
        self.server.request("DELETE", path)

    def fill(self) -> int:
        self.server.set_quota(self.namespace, pods=QUOTA)
        return QUOTA

    def refuse(self) -> None:
        break_webhook_for(self.server, self.namespace)

    def mend(self) -> None:
        mend_webhook_for(self.server, self.namespace)
        wait_until(lambda: not self.room().closed)

    def room(self) -> Room:
        return self._hands[0].room()

    def pods(self) -> int:
        return len(pods_of(self.server, self.namespace))
