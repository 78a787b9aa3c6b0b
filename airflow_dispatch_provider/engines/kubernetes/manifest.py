# SPDX-License-Identifier: Apache-2.0
"""The worker pod of a task: the same as Airflow's executor makes, for a hundredth of the time."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from airflow import settings
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import add_unique_suffix, create_unique_id
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator, workload_to_command_args

from airflow_dispatch_provider.bridge.airflow_api import (
    WorkloadKey,
    has_pod_mutation_hook,
    is_task_instance_uuid,
)
from airflow_dispatch_provider.engines.kubernetes.kube_config import KubeConfig
from airflow_dispatch_provider.engines.kubernetes.labels import (
    TASK_INSTANCE_ID_ANNOTATION,
    TASK_INSTANCE_ID_LABEL,
)
from airflow_dispatch_provider.engines.kubernetes.models import Model, copy_model, fingerprint, to_json
from airflow_dispatch_provider.engines.kubernetes.pod_template import Template, TemplateError, Templates
from airflow_dispatch_provider.engines.kubernetes.prototype import Prototype, TaskValues, marks
from airflow_dispatch_provider.exceptions import DispatchError
from airflow_dispatch_provider.masking import describe

log = logging.getLogger(__name__)

_NEUTRAL = "dispatch-neutral"

MAX_CACHED = 256
"""Prototypes, and pod names without their suffix, that are kept for reuse."""


class InvalidTask(DispatchError):
    """No pod can be made for this task, now or later; says in one sentence what was found, and where."""


class _Override:
    """A ``pod_override`` that is equal to others of the same content."""

    def __init__(self, pod: Model) -> None:
        self.pod = pod
        self._key: Hashable = fingerprint(pod)
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Override) and self._key == other._key


@dataclass(frozen=True)
class _Wish:
    """The pod that the task, its queue and the configuration ask for."""

    pod_override: Model | None
    template: str
    template_from: str
    image: str | None


class PodFactory:
    """
    Makes the manifests of worker pods. Used by one thread, which need not be the scheduler's.

    Airflow's own code makes a prototype for each combination of template, image and ``pod_override``; a task's
    values are then filled into a copy of that.
    """

    def __init__(
        self,
        kube_config: KubeConfig,
        scheduler_job_id: str,
        coordinator_extra: Callable[[str | None], Mapping[str, Any] | None],
        watched: Collection[str | None] = (None,),
    ) -> None:
        """
        :param kube_config: from the backend's own configuration
        :param coordinator_extra: ``KubernetesExecutor._coordinator_extra``: what ``[sdk] coordinators`` says
            for a queue
        :param watched: the namespaces whose pods are watched; None: all of them
        """
        self._watched = watched
        self._kube_config = kube_config
        self._job_id = scheduler_job_id
        self._coordinator_extra = coordinator_extra
        self._templates = Templates()
        self._worker = lru_cache(MAX_CACHED)(self._make_worker)
        self._prototype = lru_cache(MAX_CACHED)(self._make_prototype)

    def build(self, workload: Any, key: WorkloadKey) -> dict[str, Any]:
        """
        The manifest of the pod that runs ``workload``, an ``ExecuteTask``, with a name of its own.

        ``metadata`` with its labels and annotations belongs to the caller. Everything else may be shared with
        other manifests and must not be changed.

        :param key: under which the executor knows the task; an instance id is written into the pod
        :raises InvalidTask: for whatever cannot be built
        """
        try:
            manifest = self._build(workload)
        except InvalidTask:
            raise
        except Exception as error:
            raise InvalidTask(f"The pod cannot be built: {describe(error)}") from error
        self._check_namespace(str(manifest["metadata"].get("namespace")))
        if is_task_instance_uuid(key):
            metadata = manifest["metadata"]
            metadata.setdefault("annotations", {})[TASK_INSTANCE_ID_ANNOTATION] = str(key)
            metadata.setdefault("labels", {})[TASK_INSTANCE_ID_LABEL] = str(key)
        return manifest

    def plain(self, namespace: str) -> dict[str, Any] | None:
        """The manifest of a pod of the backend's own template, for no task; None where it cannot be made."""
        try:
            template = self._templates.get(self._kube_config.pod_template_file)
            prototype = self._prototype(template, self._kube_config.kube_image, None, False, False)
            values = TaskValues.of(self._job_id, _NEUTRAL, _NEUTRAL, _NEUTRAL, None, 1, -1, ["true"])
            pod = prototype.fill_model(values)
            if has_pod_mutation_hook():
                _mutate(pod)
            manifest = _checked(to_json(pod), values)
        except Exception as error:
            log.debug("No neutral pod can be made: %s", describe(error))
            return None
        return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}

    def _check_namespace(self, namespace: str) -> None:
        """An end that nobody would see is worse than a refusal."""
        if not is_namespace(namespace):
            raise InvalidTask(f"The pod asks for the namespace {namespace!r}, which can be none")
        if None not in self._watched and namespace not in self._watched:
            raise InvalidTask(
                f"The pod asks for the namespace {namespace}, whose pods this backend does not watch: set"
                " [kubernetes_executor] multi_namespace_mode, and name it in multi_namespace_mode_namespace_list"
            )

    def _build(self, workload: Any) -> dict[str, Any]:
        ti = workload.ti
        wish = self._wish(ti)
        template = self._template(wish)
        values = self._values(workload)
        mapped, has_run_id = ti.map_index >= 0, bool(ti.run_id)
        prototype = self._prototype_for(template, wish, mapped, has_run_id)
        hook = has_pod_mutation_hook()
        if prototype.complete and not hook:
            return prototype.fill(values)
        pod = prototype.fill_model(values) if prototype.complete else self._construct(template, wish, values)
        if hook:
            _mutate(pod)
        return _checked(to_json(pod), values)

    def _wish(self, ti: Any) -> _Wish:
        config = ti.executor_config or {}
        try:
            pod_override = PodGenerator.from_obj(config)
            template = config.get("pod_template_file")
        except Exception as error:
            raise InvalidTask(f"The task's executor_config is not valid: {describe(error)}") from error
        origin = "the task's executor_config"
        image = None
        extra = self._coordinator_extra(ti.queue)
        if extra is not None:
            repository, tag = extra.get("worker_container_repository"), extra.get("worker_container_tag")
            image = f"{repository}:{tag}" if repository and tag else None
            if extra.get("pod_template_file") is not None:
                template, origin = extra["pod_template_file"], f"[sdk] coordinators for queue {ti.queue}"
        if not template:
            template, origin = self._kube_config.pod_template_file, "[kubernetes_executor] pod_template_file"
        return _Wish(pod_override, template, origin, image or self._kube_config.kube_image)

    def _template(self, wish: _Wish) -> Template:
        try:
            return self._templates.get(wish.template)
        except TemplateError as error:
            raise InvalidTask(f"The pod template of {wish.template_from} {error}") from error

    def _values(self, workload: Any) -> TaskValues:
        ti = workload.ti
        return TaskValues.of(
            self._job_id,
            name=add_unique_suffix(name=_slug(ti.dag_id, ti.task_id)),
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            try_number=ti.try_number,
            map_index=ti.map_index,
            args=workload_to_command_args(workload),
        )

    def _prototype_for(self, template: Template, wish: _Wish, mapped: bool, has_run_id: bool) -> Prototype:
        try:
            override = None if wish.pod_override is None else _Override(wish.pod_override)
        except TypeError as error:
            raise InvalidTask(f"The task's pod_override cannot be used: {error}") from error
        return self._prototype(template, wish.image, override, mapped, has_run_id)

    def _make_prototype(
        self,
        template: Template,
        image: str | None,
        override: _Override | None,
        mapped: bool,
        has_run_id: bool,
    ) -> Prototype:
        pod = self._worker(template, image, mapped, has_run_id)
        if override is not None:
            pod = _reconciled(pod, override.pod)
        try:
            return Prototype(pod, marks(self._job_id, mapped=mapped, has_run_id=has_run_id))
        except Exception as error:
            raise InvalidTask(f"The pod cannot be written as JSON: {describe(error)}") from error

    def _make_worker(self, template: Template, image: str | None, mapped: bool, has_run_id: bool) -> Model:
        """The pod of a task without ``pod_override``, which Airflow merges last, and so does ``_reconciled``."""
        marked = marks(self._job_id, mapped=mapped, has_run_id=has_run_id)
        return self._constructed(template, image, marked)

    def _construct(self, template: Template, wish: _Wish, values: TaskValues) -> Model:
        """The pod of one task without any short cut."""
        pod = self._constructed(template, wish.image, values)
        return pod if wish.pod_override is None else _reconciled(pod, wish.pod_override)

    def _constructed(self, template: Template, image: str | None, values: TaskValues) -> Model:
        try:
            pod = PodGenerator.construct_pod(
                namespace=self._kube_config.kube_namespace,
                scheduler_job_id=self._job_id,
                pod_id=values.name,
                dag_id=values.dag_id,
                task_id=values.task_id,
                kube_image=image,  # type: ignore[arg-type, unused-ignore]
                try_number=values.try_number,
                map_index=values.map_index,
                date=None,
                run_id=values.run_id,
                args=values.args,
                pod_override_object=None,
                base_worker_pod=template.pod,
                with_mutation_hook=False,
            )
        except Exception as error:
            reason = describe(error.__cause__ or error)
            raise InvalidTask(f"The pod template {template.path} cannot be used: {reason}") from error
        return copy_model(pod)


def is_namespace(name: str) -> bool:
    """Whether Kubernetes takes it for a namespace (RFC 1123 label)."""
    return re.fullmatch(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", name) is not None


@lru_cache(MAX_CACHED)
def _slug(dag_id: str, task_id: str) -> str:
    return create_unique_id(dag_id, task_id, unique=False) or "task"


def _reconciled(pod: Model, pod_override: Model) -> Model:
    try:
        return PodGenerator.reconcile_pods(pod, copy_model(pod_override))
    except Exception as error:
        reason = describe(error)
        raise InvalidTask(
            f"The task's pod_override cannot be merged with the pod template: {reason}"
        ) from error


_LABELS = ("airflow-worker", "kubernetes_executor")
"""By which a pod is seen at all; one that had none would be taken for gone."""

_ANNOTATIONS = ("dag_id", "task_id", "run_id", "try_number", "map_index")
"""By which it is known whose it is."""


def _mutate(pod: Model) -> None:
    """A hook may replace the labels, but not those by which the pod is found."""
    labels, annotations = dict(pod.metadata.labels or {}), dict(pod.metadata.annotations or {})
    try:
        hook: Any = settings.pod_mutation_hook
        hook(pod)
        if (metadata := pod.metadata) is not None:
            metadata.labels = {**(metadata.labels or {}), **_of(labels, _LABELS)}
            metadata.annotations = {**(metadata.annotations or {}), **_of(annotations, _ANNOTATIONS)}
    except BaseException as error:  # sys.exit() among them, which would end the thread
        raise InvalidTask(f"The pod_mutation_hook raised {describe(error)}") from error


def _of(texts: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: texts[name] for name in names if name in texts}


def _checked(manifest: dict[str, Any], values: TaskValues) -> dict[str, Any]:
    """Check what has to be there after a mutation hook."""
    metadata = manifest.get("metadata") or {}
    if not metadata.get("namespace"):
        raise InvalidTask("The pod has no namespace any more after the pod_mutation_hook")
    # With generateName, a create that is repeated after a lost answer would make a second pod.
    metadata["name"] = metadata.get("name") or values.name
    return manifest
