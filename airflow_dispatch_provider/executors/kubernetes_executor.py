# SPDX-License-Identifier: Apache-2.0
"""A pod for every task, with all traffic with the API server off the scheduler's thread."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any
from uuid import UUID

from airflow.configuration import conf as airflow_conf
from airflow.executors.base_executor import BaseExecutor
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import (
    KubernetesExecutor as AirflowKubernetesExecutor,
)
from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
from airflow.utils.state import TaskInstanceState

from airflow_dispatch_provider.bridge import airflow_api
from airflow_dispatch_provider.bridge.airflow_api import Workload, WorkloadKey
from airflow_dispatch_provider.bridge.task_instances import reschedule_queued, stored
from airflow_dispatch_provider.bridge.version_compat import warn_if_untested
from airflow_dispatch_provider.bridge.workload import token_lifetime, with_fresh_token
from airflow_dispatch_provider.engines.holding_back import HoldsBack
from airflow_dispatch_provider.engines.kubernetes import pod_log
from airflow_dispatch_provider.engines.kubernetes.checks import kubernetes_doubts, kubernetes_problems
from airflow_dispatch_provider.engines.kubernetes.cluster import Cluster
from airflow_dispatch_provider.engines.kubernetes.controller import Controller, Policy
from airflow_dispatch_provider.engines.kubernetes.creator import FRESH
from airflow_dispatch_provider.engines.kubernetes.ends import Database, Rows
from airflow_dispatch_provider.engines.kubernetes.finisher import delete_options
from airflow_dispatch_provider.engines.kubernetes.flight import Flight, adopted, wanted
from airflow_dispatch_provider.engines.kubernetes.labels import selector
from airflow_dispatch_provider.engines.kubernetes.manifest import PodFactory
from airflow_dispatch_provider.engines.kubernetes.model import (
    Created,
    Ended,
    Job,
    Over,
    PutBack,
    Rejected,
    Released,
    Report,
    Searched,
    Stuck,
)
from airflow_dispatch_provider.engines.kubernetes.outcome import Launches, Next, after, state_after
from airflow_dispatch_provider.engines.kubernetes.pod_api import PodApi, Timing
from airflow_dispatch_provider.engines.kubernetes.trouble import delay
from airflow_dispatch_provider.engines.protocols import Claim
from airflow_dispatch_provider.exceptions import DispatchConfigError, Problem

WAITED = "waiting for cluster"
"""``log.event`` of a task that was taken back because the cluster could not be used, or had no room."""

POD_FAILED = "pod failed"
POD_PENDING = "pod does not start"
POD_AGAIN = "pod created again"
PUT_BACK = "task scheduled again"
"""``log.event`` where a pod's own story explains what happens to its task."""

FLUSH = 10.0
"""Seconds that ``end`` lets pods that are through be finished."""


class KubernetesExecutor(HoldsBack, AirflowKubernetesExecutor):
    """
    Airflow's KubernetesExecutor with the same options, templates, hooks and pods. One thread makes all API calls,
    concurrently; the scheduler's thread only exchanges lists with it.

    An outage of the API server fails no task: what was not sent returns to the queue that it came from.
    """

    judges_failures = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call, unused-ignore]
        self._controller: Controller | None = None
        self._flights: dict[WorkloadKey, Flight] = {}
        self._searched: dict[WorkloadKey, bool | None] = {}
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
        watched = self._watched()
        factory = PodFactory(self.kube_config, self.scheduler_job_id, self._coordinator_extra, watched)
        policy = self._policy(limit, watched)
        database = Database(lambda: list(self._flights), self._stored, self._put_back)
        self._controller = Controller(
            self._cluster.server(),
            api,
            factory,
            policy,
            database,
            self._renewed,
        )
        self._controller.start()

    @cached_property
    def _cluster(self) -> Cluster:
        return Cluster(self.conf)

    def _renewed(self, workload: Workload) -> Workload:
        return with_fresh_token(workload, lambda: self.jwt_generator, FRESH)

    def _policy(self, limit: int, watched: tuple[str | None, ...]) -> Policy:
        config: Any = self.kube_config
        conf: Any = self.conf
        return Policy(
            namespace=config.kube_namespace,
            watched=watched,
            label=self._label,
            limit=limit,
            launch_retries=conf.getint("dispatch", "launch_retries", fallback=10),
            fatal_reasons=tuple(config.worker_pod_pending_fatal_container_state_reasons),
            delete=config.delete_worker_pods,
            delete_failed=config.delete_worker_pods_on_failure,
            delete_options=delete_options(config.delete_option_kwargs),
        )

    def _watched(self) -> tuple[str | None, ...]:
        """Pods that name no namespace are in that of the backend, which a list of several may leave out."""
        namespaces = self._namespaces()
        home = self.kube_config.kube_namespace
        return namespaces if {None, home} & {*namespaces} else (*namespaces, home)

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
        self._flights[key] = Flight(key, workload.ti.id, workload)
        self.running.add(key)
        return Job(key, workload)

    def _leave(self, key: WorkloadKey) -> Flight | None:
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
            if isinstance(report, Searched):
                self._searched.update(dict.fromkeys(report.found, True) | dict.fromkeys(report.absent, False))
            elif (flight := self._flights.get(report.key)) is not None:
                self._note(flight, report)

    def _note(self, flight: Flight, report: Report) -> None:
        if isinstance(report, Created):
            flight.pod, flight.created = report.pod, time.monotonic()
            self.event_buffer.setdefault(flight.key, (TaskInstanceState.QUEUED, self.scheduler_job_id))
        elif isinstance(report, Rejected):
            self._fail(flight, report.reason)
        elif isinstance(report, Stuck):
            if report.reason != flight.stuck:
                self._tell(flight, POD_PENDING, f"Pod {report.pod}: {report.reason}")
            flight.stuck = report.reason
        elif isinstance(report, Released):
            self._finish(flight, TaskInstanceState.SUCCESS, "another scheduler has taken its pod over")
        elif isinstance(report, PutBack):
            if flight.workload is None:
                self._finish(flight, TaskInstanceState.SUCCESS)
        elif isinstance(report, Over):
            self._note_over(flight, report)
        elif isinstance(report, Ended) and report.pod in (None, flight.pod):
            self._note_end(flight, report)

    def _note_over(self, flight: Flight, report: Over) -> None:
        """Airflow has ended the task; nobody has seen its pod end."""
        self.log.info("Task %s is over (%s), and its pod is not waited for.", flight.key, report.state)
        if flight.pod is not None and self._controller:
            self._controller.revoke(flight.pod)
        elif flight.workload is not None:
            self._revoke(flight.key, flight, self._labels_of(flight.workload.ti))
        self._finish(flight, state_after(report.state))

    def _note_end(self, flight: Flight, report: Ended) -> None:
        does = after(report, self.job_id, self._launches(flight))
        reason = f"Pod {report.pod}: {report.reason}" if report.pod else report.reason
        if does is Next.FINISH:
            self._finish(flight, state_after(report.row.state if report.row else None))
        elif does is Next.LAUNCH_AGAIN:
            self._launch_again(flight, reason)
        elif does is Next.FAIL:
            self._fail(flight, reason)
        elif self._controller and does is Next.LOOK_AGAIN:
            self._controller.look_up_again(report)
        elif self._controller:
            self._tell(flight, PUT_BACK, reason)
            self._controller.put_back(report)

    def _launches(self, flight: Flight) -> Launches:
        return Launches(
            done=flight.launches,
            most=self.pod_launch_failure_max_retries,
            excluded_reasons=self.pod_launch_failure_excluded_container_reasons,
            adopted=flight.workload is None,
            former_owner=flight.former_owner,
            token_expired=time.monotonic() - flight.created + FRESH >= token_lifetime(),
        )

    def _launch_again(self, flight: Flight, reason: str) -> None:
        self._tell(flight, POD_AGAIN, reason)
        pause = delay(flight.launches - 1)
        flight.land()
        if self._controller:
            job = Job(flight.key, flight.workload)
            self._controller.submit([job], after=pause)

    # What the database is asked, on a thread of its own

    def _stored(self, keys: Sequence[WorkloadKey]) -> Rows:
        ids = self._ids_of(keys)
        found = stored(ids.values())
        return {key: found[ti_id] for key, ti_id in ids.items() if ti_id in found}

    def _put_back(self, keys: Sequence[WorkloadKey]) -> set[WorkloadKey]:
        job_id = None if self.job_id is None else int(self.job_id)
        ids = self._ids_of(keys)
        done = reschedule_queued(ids.values(), time.time(), queued_by=job_id)
        return {key for key, ti_id in ids.items() if ti_id in done}

    def _ids_of(self, keys: Sequence[WorkloadKey]) -> dict[WorkloadKey, UUID]:
        return {key: flight.ti_id for key in keys if (flight := self._flights.get(key))}

    def _fail(self, flight: Flight, reason: str) -> None:
        self.log.warning("Task %s fails: %s", flight.key, reason)
        self._tell(flight, POD_FAILED, reason)
        self._finish(flight, TaskInstanceState.FAILED, reason)

    def _finish(self, flight: Flight, state: Any, info: Any = None) -> None:
        self._leave(flight.key)
        BaseExecutor.change_state(self, flight.key, state, info, remove_running=False)

    def _tell(self, flight: Flight, event: str, extra: str) -> None:
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

    def _revoke(self, key: WorkloadKey, flight: Flight | None, labels: str) -> None:
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
        return selector(ti, ti.try_number, self.job_id)

    # Adoption

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Take over what schedulers that died had here. All of it is claimed at once, and the cluster is asked on the
        thread of the API calls: a queued task without a pod is then put back in place, and a running one fails, as
        nobody saw its pod end. This executor's own stay as they are."""
        controller = self._controller
        if controller is None:
            return tis
        foreign = self._foreign(tis)
        if not foreign:
            return []
        # Before their pods are looked at: an end that is seen at once is looked up under these.
        for key, ti in foreign.items():
            self._searched.pop(key, None)
            self._flights[key] = adopted(key, ti)
        self.running.update(foreign)
        controller.adopt(wanted(foreign))
        self.log.info("Looking for the pods of %d tasks of other schedulers.", len(foreign))
        return []

    def adopt_if_found(self, tis: Sequence[Any]) -> Sequence[Any] | None:
        """See ``protocols.AdoptsIfFound``."""
        controller = self._controller
        foreign = self._foreign(tis)
        if controller is None or not foreign:
            return tis if controller is None else []
        unknown = {key: ti for key, ti in foreign.items() if key not in self._searched}
        if unknown:
            self._searched.update(dict.fromkeys(unknown, None))
            controller.search(wanted(unknown))
        if any(self._searched[key] is None for key in foreign):
            return None
        found = {key for key in foreign if self._searched.pop(key)}
        self.try_adopt_task_instances([foreign[key] for key in found])
        return [ti for key, ti in foreign.items() if key not in found]

    def _foreign(self, tis: Sequence[Any]) -> dict[WorkloadKey, Any]:
        """Those that are not in this executor's care."""
        keys = {airflow_api.task_key(self, ti): ti for ti in tis}
        return {key: ti for key, ti in keys.items() if not airflow_api.has_key(self, key)}

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
