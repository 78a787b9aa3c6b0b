# SPDX-License-Identifier: Apache-2.0
"""A pod for every task, with all traffic with the API server off the scheduler's thread."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from airflow.configuration import conf as airflow_conf
from airflow.executors.base_executor import BaseExecutor
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import (
    KubernetesExecutor as AirflowKubernetesExecutor,
)
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator, make_safe_label_value
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.bridge.task_instances import stored
from airflow_dispatch_provider.bridge.version_compat import warn_if_untested
from airflow_dispatch_provider.engines.holding_back import HoldsBack
from airflow_dispatch_provider.engines.kubernetes import pod_log
from airflow_dispatch_provider.engines.kubernetes.adoption import NOT_DONE
from airflow_dispatch_provider.engines.kubernetes.checks import kubernetes_doubts, kubernetes_problems
from airflow_dispatch_provider.engines.kubernetes.cluster import Cluster
from airflow_dispatch_provider.engines.kubernetes.controller import Controller, Policy
from airflow_dispatch_provider.engines.kubernetes.ends import Rows
from airflow_dispatch_provider.engines.kubernetes.finisher import delete_options
from airflow_dispatch_provider.engines.kubernetes.manifest import PodFactory
from airflow_dispatch_provider.engines.kubernetes.model import (
    Created,
    End,
    Ended,
    Job,
    PodName,
    Rejected,
    Released,
    Report,
    Stuck,
)
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi, Timing
from airflow_dispatch_provider.engines.protocols import Claim
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem

WAITED = "waiting for cluster"
"""``log.event`` of a task that was taken back because the cluster could not be used, or had no room."""

POD_FAILED = "pod failed"
POD_PENDING = "pod does not start"
POD_AGAIN = "pod created again"
"""``log.event`` where a pod's own story explains what happens to its task."""

ADOPTION = 15.0
"""Seconds that adoption waits for the API server, on the scheduler's thread: at its start, and once in minutes."""

FLUSH = 10.0
"""Seconds that ``end`` lets pods that are through be finished."""

_UNDECIDED = (None, TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)


@dataclass(slots=True)
class _Flight:
    """A workload that was handed over, or adopted."""

    key: WorkloadKey
    ti_id: UUID
    workload: Workload | None
    """None for an adopted task."""

    pod: PodName | None = None
    launches: int = 1
    stuck: str | None = None


class KubernetesExecutor(HoldsBack, AirflowKubernetesExecutor):
    """
    Airflow's KubernetesExecutor with the same options, templates, hooks and pods. One thread makes all API calls,
    concurrently; the scheduler's thread only exchanges lists with it.

    An outage of the API server fails no task: what was not sent returns to the queue that it came from.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call, unused-ignore]
        self._controller: Controller | None = None
        self._flights: dict[WorkloadKey, _Flight] = {}
        self._tidied = -math.inf

    def __repr__(self) -> str:
        unsent = self._controller.unsent if self._controller else 0
        return f"{type(self).__name__}(slots={self.parallelism}, pods={len(self._flights)}, unsent={unsent})"

    # Life of the executor

    def start(self) -> None:
        """Start the thread; a cluster that cannot be reached is waited for.

        :raises DispatchConfigError: see ``config_problems``
        """
        warn_if_untested()
        if problems := self.config_problems():
            raise DispatchConfigError(problems)
        self.scheduler_job_id = str(self.job_id)
        conf: Any = self.conf
        self._max_unsent = conf.getint("dispatch", "kubernetes_max_unsent", fallback=250)
        limit = conf.getint("dispatch", "kubernetes_concurrency", fallback=32)
        api = PodApi(self._cluster.connect, Timing(), self.kube_config.kube_client_request_args)
        factory = PodFactory(self.kube_config, self.scheduler_job_id, self._coordinator_extra)
        policy = self._policy(limit)
        self._controller = Controller(self._cluster.server(), api, factory, policy, self._stored)
        self._controller.start()

    @cached_property
    def _cluster(self) -> Cluster:
        return Cluster(self.conf)

    def _policy(self, limit: int) -> Policy:
        config: Any = self.kube_config
        return Policy(
            namespace=config.kube_namespace,
            watched=self._namespaces(),
            labels=f"airflow-worker={self._label},{NOT_DONE}",
            limit=limit,
            fatal_reasons=tuple(config.worker_pod_pending_fatal_container_state_reasons),
            delete=config.delete_worker_pods,
            delete_failed=config.delete_worker_pods_on_failure,
            delete_options=delete_options(config.delete_option_kwargs),
        )

    def _namespaces(self) -> tuple[str | None, ...]:
        config = self.kube_config
        if not config.multi_namespace_mode:
            return (config.kube_namespace,)
        return tuple(config.multi_namespace_mode_namespace_list or (None,))

    @property
    def _label(self) -> str:
        return make_safe_label_value(str(self.job_id))

    def config_problems(self) -> list[Problem]:
        """See ``protocols.ChecksConfig``: the way to the cluster, pod template, namespaces, arguments of requests."""
        return kubernetes_problems(self.conf, self._cluster)

    def config_doubts(self) -> list[Problem]:
        """See ``protocols.DoubtsConfig``: pods without an image, options that another one switches off."""
        return list(kubernetes_doubts(self.conf))

    def claims(self) -> Sequence[Claim]:
        """See ``protocols.Claims``: whoever watches a namespace finishes the pods of this scheduler there."""
        server = self._cluster.server()
        return [Claim(server, namespace and f"namespace {namespace}") for namespace in self._namespaces()]

    def sync(self) -> None:
        """Take note of what has become of pods; called by every heartbeat."""
        controller = self._controller
        if controller is None:
            return
        self._note_all(controller.drain())
        self._sync_held_back()
        if time.monotonic() - self._tidied >= self._tidy_interval:
            self._tidied = time.monotonic()
            living = self._alive_other_scheduler_job_ids()
            controller.tidy({self._label, *(make_safe_label_value(str(job_id)) for job_id in living)})

    @cached_property
    def _tidy_interval(self) -> float:
        return airflow_conf.getfloat("scheduler", "orphaned_tasks_check_interval", fallback=300.0)

    def end(self) -> None:
        """Clean up completed pods, for a bounded time. Pods go on; what is not a pod yet is left to the next scheduler,
        which finds none for it, and schedules it again."""
        controller, self._controller = self._controller, None
        if controller is None:
            return
        unsent = controller.stop(FLUSH)
        if unsent:
            self.log.warning("Ending with %d tasks for which there is no pod yet.", len(unsent))
        self._note_all(controller.drain())

    def terminate(self) -> None:
        """Tasks run elsewhere: nothing to end."""

    # Handing over

    def _may_send(self) -> int:
        controller = self._controller
        if controller is None or self._is_held_up():
            return 0
        room: int = self._max_unsent - controller.unsent
        return room

    def _process_workloads(self, workload_items: Sequence[Workload]) -> None:
        if self._controller:
            self._controller.submit([self._hand_over(workload) for workload in workload_items])

    def _hand_over(self, workload: Workload) -> Job:
        key = airflow_api.workload_key(self, workload)
        workload = self._take_for_sending(key, workload)
        # Where a task that was deferred comes back, its first pod is left to come to its end.
        self._flights[key] = _Flight(key, workload.ti.id, workload)
        self.running.add(key)
        return Job(key, workload)

    def _leave(self, key: WorkloadKey) -> _Flight | None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            self.running.discard(key)
        return flight

    # What the router asks for

    def health(self) -> str | None:
        """See ``protocols.ReportsHealth``."""
        return self._controller.problem if self._controller else None

    def no_room(self) -> str | None:
        """See ``protocols.ReportsNoRoom``: the namespace's quota is used up."""
        return self._controller.full if self._controller else None

    def _is_held_up(self) -> bool:
        return self.health() is not None or self.no_room() is not None

    def _withdraw_unsent(self) -> Iterator[Workload]:
        for job in self._controller.withdraw_all() if self._controller else ():
            if self._leave(job.key):
                yield job.workload

    def _waits_for(self) -> tuple[str, str]:
        return WAITED, self.health() or self.no_room() or "The cluster can be used again."

    # Taking note of what happened

    def _note_all(self, reports: Sequence[Report]) -> None:
        for report in reports:
            flight = self._flights.get(report.key)
            if flight is not None:
                self._note(flight, report)

    def _note(self, flight: _Flight, report: Report) -> None:
        if isinstance(report, Created):
            flight.pod = report.pod
            self.event_buffer.setdefault(flight.key, (TaskInstanceState.QUEUED, self.scheduler_job_id))
        elif isinstance(report, Rejected):
            self._fail(flight, report.reason)
        elif isinstance(report, Stuck):
            self._tell(flight, POD_PENDING, f"Pod {report.pod}: {report.reason}")
            flight.stuck = report.reason
        elif isinstance(report, Released):
            self._finish(flight, TaskInstanceState.SUCCESS, "another scheduler has taken its pod over")
        elif report.pod in (None, flight.pod):
            self._note_end(flight, report)

    def _stored(self, keys: Sequence[WorkloadKey]) -> Rows:
        """Look up these tasks in the database; called on a thread of its own."""
        ids = {key: flight.ti_id for key in keys if (flight := self._flights.get(key))}
        found = stored(ids.values())
        return {key: found[ti_id] for key, ti_id in ids.items() if ti_id in found}

    def _note_end(self, flight: _Flight, report: Ended) -> None:
        row = report.row
        state = row.state if row is not None else None
        ours = row is None or row.queued_by_job_id == self.job_id
        if report.end is End.SUCCEEDED or not ours:
            self._finish(flight, TaskInstanceState.SUCCESS if state in _UNDECIDED else state)
        elif report.end is End.VANISHED and state not in _UNDECIDED:
            self._finish(flight, state)
        elif self._may_launch_again(flight, report, state):
            self._launch_again(flight, report)
        else:
            self._fail(flight, f"Pod {report.pod}: {report.reason}" if report.pod else report.reason)

    def _may_launch_again(self, flight: _Flight, report: Ended, state: Any) -> bool:
        """As Airflow's executor does: where the task has certainly not begun, a new pod costs none of its tries."""
        if flight.workload is None or report.started or state != TaskInstanceState.QUEUED:
            return False
        if report.container_reason in self.pod_launch_failure_excluded_container_reasons:
            return False
        most = self.pod_launch_failure_max_retries
        return bool(most < 0 or flight.launches <= most)

    def _launch_again(self, flight: _Flight, report: Ended) -> None:
        self._tell(flight, POD_AGAIN, f"Pod {report.pod}: {report.reason}")
        flight.launches, flight.pod, flight.stuck = flight.launches + 1, None, None
        if self._controller:
            self._controller.submit([Job(flight.key, flight.workload)])

    def _fail(self, flight: _Flight, reason: str) -> None:
        self.log.warning("Task %s fails: %s", flight.key, reason)
        self._tell(flight, POD_FAILED, reason)
        self._finish(flight, TaskInstanceState.FAILED, reason)

    def _finish(self, flight: _Flight, state: Any, info: Any = None) -> None:
        self._leave(flight.key)
        BaseExecutor.change_state(self, flight.key, state, info, remove_running=False)

    def _tell(self, flight: _Flight, event: str, extra: str) -> None:
        self.log_task_event(event=event, extra=extra, ti_key=flight.key)

    # Taking back what was handed over

    def change_state(
        self, key: WorkloadKey, state: Any, info: Any = None, remove_running: bool = True
    ) -> None:
        """From outside, a final state means that nothing is waited for any more under the key."""
        if remove_running:
            self._abandon(key)
        BaseExecutor.change_state(self, key, state, info, remove_running)

    def revoke_task(self, *, ti: Any) -> None:
        """Drop the task, and delete its pod as soon as that can be done. Raises nothing and reports nothing."""
        try:
            key = airflow_api.task_key(self, ti)
            airflow_api.forget_queued_key(self, key)
            flight = self._flights.get(key)
            if flight is not None and flight.stuck:
                self._tell(flight, POD_FAILED, f"Pod {flight.pod} never started: {flight.stuck}")
            self._revoke(key, flight, self._labels_of(ti))
        except Exception:
            self.log.exception("Could not revoke %s", ti)

    def _revoke(self, key: WorkloadKey, flight: _Flight | None, labels: str) -> None:
        """
        :param labels: select its pod, where it has one whose name is not known here
        """
        controller = self._controller
        if self._abandon(key) or controller is None:
            return
        if flight is not None and flight.pod is not None:
            controller.revoke(flight.pod)
        else:
            controller.revoke_unseen(key, labels)

    def _abandon(self, key: WorkloadKey) -> bool:
        """Wait no longer for what becomes of it; whether it is certain that there is, and will be, no pod."""
        self._leave(key)
        return self._controller is not None and self._controller.withdraw(key)

    def _labels_of(self, ti: Any) -> str:
        generator: Any = PodGenerator
        selector = generator.build_selector_for_k8s_executor_pod(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            try_number=ti.try_number,
            map_index=ti.map_index,
            airflow_worker=self.job_id,
        )
        return str(selector)

    # Adoption

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Take over the pods of dead schedulers; tasks that have none are returned. Where the cluster cannot be asked
        now, that is what is queued, while what runs is kept and asked for later: a second copy of it would start
        beside the first. This executor's own stay as they are."""
        controller = self._controller
        if controller is None:
            return tis
        foreign = {airflow_api.task_key(self, ti): ti for ti in tis}
        foreign = {key: ti for key, ti in foreign.items() if not airflow_api.has_key(self, key)}
        workers = sorted({make_safe_label_value(str(ti.queued_by_job_id)) for ti in foreign.values()})
        if not foreign:
            return []
        wanted = {key: str(ti.id) for key, ti in foreign.items()}
        # Before their pods are looked at: an end that is seen at once is looked up under these.
        self._flights.update((key, _Flight(key, UUID(ti_id), None)) for key, ti_id in wanted.items())
        adopted = self._adopt_now(controller, workers, wanted)
        if adopted is None:
            adopted = {key for key, ti in foreign.items() if ti.state == TaskInstanceState.RUNNING}
            # Some may have this scheduler's label by now.
            workers.append(self._label)
            controller.adopt_when_possible(workers, self._label, {key: wanted[key] for key in adopted})
        for key in wanted.keys() - adopted:
            del self._flights[key]
        self.running.update(adopted)
        self.log.info("Adopted the pods of %d tasks of %d.", len(adopted), len(foreign))
        return [ti for key, ti in foreign.items() if key not in adopted]

    def _adopt_now(
        self, controller: Controller, workers: Sequence[str], wanted: Mapping[WorkloadKey, str]
    ) -> set[WorkloadKey] | None:
        """Keys of the tasks that have a pod; None where the cluster cannot be asked."""
        problem = self.health()
        if problem is None:
            answer = controller.adopt(workers, self._label, wanted)
            try:
                adopted: set[WorkloadKey] = answer.result(ADOPTION)
                return adopted
            except Exception as error:
                answer.cancel()
                problem = repr(error)
        self.log.warning("Pods of other schedulers cannot be looked up now: %s", problem)
        return None

    # For people

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """The last lines of a running task's pod, from this backend's cluster. Works without ``start``."""
        messages, streams = self.get_streaming_task_log(ti, try_number)
        return messages, ["\n".join(stream) for stream in streams] or [""]

    def get_streaming_task_log(self, ti: Any, try_number: int) -> Any:
        """The same from Airflow 3.4 on."""
        namespace = self._get_pod_namespace(ti)
        return pod_log.read(self._cluster, namespace, ti, try_number, self.RUNNING_POD_LOG_LINES)

    def debug_dump(self) -> None:
        """Log queues and pods; called from a signal handler."""
        BaseExecutor.debug_dump(self)  # type: ignore[no-untyped-call, unused-ignore]
        pods = {str(key): str(flight.pod or "not created") for key, flight in self._flights.items()}
        self.log.info("%r\n\tpods: %s\n\tproblem: %s", self, pods, self.health() or self.no_room() or "none")
