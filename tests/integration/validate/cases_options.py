# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  (a table: a case is a line)
from __future__ import annotations

from kubernetes_files import POD_TEMPLATE, kubeconfig

from .harness import Case, airflow_cfg, case

CELERY = '{"executor": "CeleryExecutor", "slots": 4, "config": %s}'
KUBERNETES = '{"executor": "KubernetesExecutor", "slots": 4, "config": %s}'
LOCAL = '{"executor": "LocalExecutor", "slots": 4, "config": %s}'
IN_MEMORY = "airflow_dispatch_provider.testing.in_memory.InMemoryExecutor"
AIRFLOWS = "airflow.executors.local_executor.LocalExecutor"
STRANGE = f'{{"executor": "{IN_MEMORY}", "slots": 4, "config": %s}}'
SUBCLASS = '{"executor": "tests.integration.validate.executors.MyCeleryExecutor", "slots": 4, "config": %s}'

BROKER = "[celery]\nbroker_url = redis://broker:6379/0\nresult_backend = db+sqlite:////tmp/results.db\n"
CLUSTER = "[kubernetes_executor]\nin_cluster = False\nconfig_file = {home}/kubeconfig\npod_template_file = {home}/pod.yaml\n"

KUBECONFIG = kubeconfig(user="{token: t}")
FILES = {"kubeconfig": KUBECONFIG, "pod.yaml": POD_TEMPLATE}
IN_ANOTHER_NAMESPACE = '{"kubernetes_executor": {"namespace": "n"}}'
LEAVE_OUT = {"mended": "", "remedy": "Leave it out"}


def of(backend: str, config: str, more: str = "") -> str:
    """An airflow.cfg with a backend ``c`` that has this ``config``, and a LocalExecutor, which can run all there is."""
    backends = f'{{"c": {backend % config}, "l": {LOCAL % "{}"}}}'
    return airflow_cfg(backends, '[{"queue": "l", "to": ["l"]}]', "c", more=BROKER + CLUSTER + more)


def celery(
    name: str, config: str, wrong: str, where: str, found: str, mended: str, remedy: str = "", **more
) -> Case:
    """A hole in the config of a Celery backend."""
    place = f"[dispatch] backends.c.config.{where}"
    return case(name, wrong, place, found, mended, remedy, cfg=of(CELERY, config), files=FILES, **more)


def kubernetes(
    name: str, config: str, wrong: str, where: str, found: str, mended: str, remedy: str = "", **more
) -> Case:
    place = f"[dispatch] backends.c.config.{where}"
    files = {**FILES, **more.pop("files", {})}
    return case(name, wrong, place, found, mended, remedy, cfg=of(KUBERNETES, config), files=files, **more)


def variable(
    name: str,
    backend: str,
    start: str,
    wrong: str,
    value: str,
    found: str,
    mended: str,
    remedy: str = "",
    **more,
) -> Case:
    """A hole in the name of an environment variable."""
    cfg = of(backend, "{}")
    return case(
        name,
        wrong,
        start + wrong,
        found,
        mended,
        remedy,
        cfg=cfg,
        env={f"{start}<>": value},
        files=FILES,
        **more,
    )


TWO_CLUSTERS = airflow_cfg(
    f'{{"c": {KUBERNETES % "{}"}, "d": {KUBERNETES % IN_ANOTHER_NAMESPACE}, "l": {LOCAL % "{}"}}}',
    '[{"queue": "l", "to": ["l"]}, {"queue": "d", "to": ["d"]}]',
    "c",
    more=CLUSTER + "running_pod_log_lines = <>",
)
URL = "redis://other:6379/0"
NAMES = [
    celery("section misspelt", f'{{"<>": {{"broker_url": "{URL}"}}}}', "celry", "celry", "names a section that does not exist", "$1"),
    celery("section of its own option", f'{{"<>": {{"broker_url": "{URL}"}}}}', "broker", "broker.broker_url", "stands in a section that does not exist", "$1"),
    celery("section of Airflow 2", '{"<>": {"default_queue": "q"}}', "celery", "celery.default_queue", "is called [operators] default_queue by now", "operators", "Set [operators] default_queue"),
    celery("option misspelt", f'{{"celery": {{"<>": "{URL}"}}}}', "brokr_url", "celery.brokr_url", "option that [celery] does not have", "$1"),
    celery("command misspelt", f'{{"celery": {{"<>": "echo {URL}"}}}}', "brokr_url_cmd", "celery.brokr_url_cmd", "option that [celery] does not have", "$1", 'Did you mean "broker_url_cmd"'),
    celery("option of another section", '{"<>": {"default_queue": "q"}}', "operator", "operator", "names a section that does not exist", "$1"),
    celery("option that never was", '{"celery": {<>}}', '"colour": "red"', "celery.colour", "option that [celery] does not have", **LEAVE_OUT),
    celery("option that is gone", '{"celery": {<>}}', '"stalled_task_timeout": "9"', "celery.stalled_task_timeout", "[scheduler] task_queued_timeout by now", **LEAVE_OUT),
    celery("the router's option", '{"dispatch": {<>}}', '"routes": "[]"', "dispatch.routes", "is set by the router", **LEAVE_OUT),
    celery("limit misspelt", '{"dispatch": {"<>": 9}}', "celery_max_unset", "dispatch.celery_max_unset", "option that [dispatch] does not have", "$1"),
    celery("a worker's option misspelt", '{"celery": {<>}}', '"worker_concurency": 8', "celery.worker_concurency", "option that [celery] does not have", **LEAVE_OUT),
    celery("a worker's option", '{"celery": {<>}}', '"worker_concurrency": 8', "celery.worker_concurrency", "read by Celery's workers", "", "leave it out here", severity="warning"),
    celery("Flower's option", '{"celery": {<>}}', '"flower_port": 8', "celery.flower_port", "read by Flower", "", "leave it out here", severity="warning"),
    celery("option that is not used", '{"celery": {<>}}', '"sync_parallelism": 8', "celery.sync_parallelism", "not used by this executor", severity="warning", **LEAVE_OUT),
    celery("another engine's section", '{<>}', '"kubernetes_executor": {"namespace": "n"}', "kubernetes_executor.namespace", "is not read by the CeleryExecutor", severity="warning", **LEAVE_OUT),
    celery("the scheduler's option", '{<>}', '"scheduler": {"task_queued_timeout": 5}', "scheduler.task_queued_timeout", "is not read by the CeleryExecutor", severity="warning", **LEAVE_OUT),
    celery("everybody's option", '{<>}', '"core": {"dags_folder": "/x"}', "core.dags_folder", "is not read by the CeleryExecutor", severity="warning", **LEAVE_OUT),
    kubernetes("section of Airflow 2.4", '{"<>": {"namespace": "n"}}', "kubernetes", "kubernetes", "names a section that does not exist", "$1"),
    kubernetes("namespace misspelt", '{"kubernetes_executor": {"<>": "n"}}', "name_space", "kubernetes_executor.name_space", "option that [kubernetes_executor] does not have", "$1"),
    kubernetes("camel case", '{"kubernetes_executor": {"<>": "n"}}', "podTemplateFile", "kubernetes_executor.podTemplateFile", "option that [kubernetes_executor] does not have", "namespace", 'Did you mean "pod_template_file"'),
    kubernetes("batch size", '{"kubernetes_executor": {<>}}', '"worker_pods_creation_batch_size": 8', "kubernetes_executor.worker_pods_creation_batch_size", "not used by this executor", severity="warning", **LEAVE_OUT),
    kubernetes("time-out that is gone", '{"kubernetes_executor": {<>}}', '"worker_pods_pending_timeout": 8', "kubernetes_executor.worker_pods_pending_timeout", "is called [scheduler] task_queued_timeout by now", **LEAVE_OUT),
    case("option misspelt for a foreign executor", "brokr_url", "[dispatch] backends.c.config.celery.brokr_url", "option that [celery] does not have", "$1", cfg=of(STRANGE, '{"celery": {"<>": "x"}}'), files=FILES, severity="warning"),
    case("option misspelt for a subclass of ours", "brokr_url", "[dispatch] backends.c.config.celery.brokr_url", "option that [celery] does not have", "$1", cfg=of(SUBCLASS, '{"celery": {"<>": "redis://h"}}'), files=FILES),
    case("a worker's option misspelt for a subclass of ours", '"worker_concurency": 8', "[dispatch] backends.c.config.celery.worker_concurency", "option that [celery] does not have", cfg=of(SUBCLASS, '{"celery": {<>}}'), files=FILES, severity="warning", **LEAVE_OUT),
    case("the router's option for a foreign executor", '"max_held": 4', "[dispatch] backends.c.config.dispatch.max_held", "is set by the router", cfg=of(STRANGE, '{"dispatch": {<>}}'), files=FILES, severity="warning", **LEAVE_OUT),
    case("parallelism for a foreign executor", '"parallelism": 4', "[dispatch] backends.c.config.core.parallelism", "is set by the router", "", "'slots' is the parallelism of a backend", cfg=of(STRANGE, '{"core": {<>}}'), files=FILES, severity="warning"),
    case("parallelism for an executor of Airflow's", '"parallelism": 4', "[dispatch] backends.c.config.core.parallelism", "is set by the router", "", "'slots' is the parallelism of a backend", cfg=of(STRANGE, '{"core": {<>}}').replace(IN_MEMORY, AIRFLOWS), files=FILES, severity="warning"),
    celery("parallelism", '{"core": {<>}}', '"parallelism": 4', "core.parallelism", "is set by the router", **LEAVE_OUT),
    celery("executor", '{"core": {<>}}', '"executor": "LocalExecutor"', "core.executor", "is set by the router", **LEAVE_OUT),
    case("option of Airflow 2 for a foreign executor", '"stalled_task_timeout": "600"', "[dispatch] backends.c.config.celery.stalled_task_timeout", "is called [scheduler] task_queued_timeout by now", "", "Set [scheduler]", cfg=of(STRANGE, '{"celery": {<>}}'), files=FILES, severity="warning"),
    case("option misspelt in the routing file", "brokr_url", "{home}/dispatch.yaml: backends.c.config.celery.brokr_url", "option that [celery] does not have", "$1", cfg=airflow_cfg("", None, None, more="config_file = {home}/dispatch.yaml\n" + BROKER), files={"dispatch.yaml": "backends:\n  c: {executor: CeleryExecutor, slots: 4, config: {celery: {<>: redis://h:6379/0}}}\n  l: {executor: LocalExecutor, slots: 4}\nroutes: [{queue: l, to: [l]}]\ndefault: c\n"}),
    case("option of a LocalExecutor misspelt", "local_preloads", "[dispatch] backends.c.config.dispatch.local_preloads", "option that [dispatch] does not have", "$1", cfg=of(LOCAL, '{"dispatch": {"<>": "json"}}'), files=FILES),
    case("team's section", "blue=celery", '[dispatch] backends.c.config["blue=celery"]', "section that does not exist", "$1", cfg=of(CELERY, f'{{"<>": {{"broker_url": "{URL}"}}}}'), files=FILES),
]  # fmt: skip

VARIABLES = [
    variable("backend misspelt", CELERY, "AIRFLOW_DISPATCH__", "CC__CELERY__BROKER_URL", URL, "begins with no backend's name", "C__CELERY__BROKER_URL", "AIRFLOW_DISPATCH__C__"),
    variable("no backend of the kind", CELERY, "AIRFLOW_DISPATCH__", "GPU__CELERY__BROKER_URL", URL, "begins with no backend's name", "C__CELERY__BROKER_URL", "begin it with AIRFLOW_DISPATCH__C__"),
    variable("two parts", CELERY, "AIRFLOW_DISPATCH__", "BROKER_URL", URL, "names no backend, section and option", "C__CELERY__BROKER_URL", "e.g. AIRFLOW_DISPATCH__C__CELERY__BROKER_URL"),
    variable("section misspelt", CELERY, "", "AIRFLOW_DISPATCH__C__CELRY__BROKER_URL", URL, "section that does not exist", "$1"),
    variable("option misspelt", CELERY, "", "AIRFLOW_DISPATCH__C__CELERY__BROKR_URL", URL, "option that [celery] does not have", "$1"),
    variable("no option", CELERY, "AIRFLOW_DISPATCH__C__", "CELERY", URL, "option that [celery] does not have", "CELERY__BROKER_URL", "lists what exists"),
    variable("small letters", CELERY, "", "airflow_dispatch__c__celery__broker_url", URL, "not all of its letters are capitals", "$1"),
    variable("underscore too few", CELERY, "AIRFLOW_DISPATCH__C__", "CELERY_BROKER_URL", URL, "does not name a backend, a section and an option", "CELERY__BROKER_URL", 'Did you mean "AIRFLOW_DISPATCH__C__CELERY__BROKER_URL"'),
    variable("section left out", KUBERNETES, "", "AIRFLOW_DISPATCH__C__NAMESPACE", "n", "does not name a backend, a section and an option", "$1"),
    variable("section left out of a command", CELERY, "", "AIRFLOW_DISPATCH__C__BROKER_URL_CMD", f"echo {URL}", "does not name a backend, a section and an option", "$1"),
    variable("backend left out", CELERY, "", "AIRFLOW_DISPATCH__CELERY__BROKER_URL", URL, "begins with no backend's name", "$1"),
    variable("prefix of an option of Airflow's own", CELERY, "", "AIRFLOW__DISPATCH__C__CELERY__BROKER_URL", URL, "sets no option of a backend", "$1"),
    *(
        variable(f"prefix {start}", CELERY, "", f"{start}C__CELERY__BROKER_URL", URL, "does not begin with AIRFLOW_DISPATCH__", "$1", "Call it", severity="warning")
        for start in ("AIRFLOW_DISPATCH_", "AIRFLOW__", "AIRFLOW_DISPATCHER__", "AIRFLOW__DISPATCHER__")
    ),
    *(
        case(f"{wrong} with a backend {name}", wrong, wrong, found, "$1", cfg=of(CELERY, "{}").replace('"c"', f'"{name}"').replace("default = c", f"default = {name}"), env={"<>": URL}, files=FILES)
        for name, wrong, found in (
            ("celery", "AIRFLOW_DISPATCH__CELERY__BROKER_URL", "does not name a backend, a section and an option"),
            ("celery-eu", "AIRFLOW_DISPATCH__CELERY__BROKER_URL", "begins with no backend's name"),
            ("celery-eu", "AIRFLOW_DISPATCH__CELERY_EU__CELERY_BROKER_URL", "does not name a backend"),
            ("celery-eu", "AIRFLOW_DISPATCH__CELRY_EU__BROKER_URL", "begins with no backend's name"),
        )
    ),
    variable("the router's parallelism", CELERY, "AIRFLOW_DISPATCH__C__", "CORE__PARALLELISM", "9", "is set by the router", "CELERY__OPERATION_TIMEOUT", "Leave it out"),
    variable("a worker's option", CELERY, "AIRFLOW_DISPATCH__C__CELERY__", "WORKER_CONCURRENCY", "9", "read by Celery's workers", "OPERATION_TIMEOUT", "leave it out here", severity="warning"),
    variable("another engine's option", KUBERNETES, "AIRFLOW_DISPATCH__C__", "CELERY__BROKER_URL", "n", "is not read by the KubernetesExecutor", "KUBERNETES_EXECUTOR__NAMESPACE", "Leave it out", severity="warning"),
]  # fmt: skip

NOT_A_NUMBER = ("is not a whole number", "$e")
VALUES = [
    celery("number in words", '{"celery": {"operation_timeout": "<>"}}', "lots", "celery.operation_timeout", "is not a number of 0 or more", "$e"),
    celery("bound in words", '{"dispatch": {"celery_max_unsent": "<>"}}', "lots", "dispatch.celery_max_unsent", "found \"lots\"", "$e"),
    celery("bound of none", '{"dispatch": {"celery_max_unsent": <>}}', "0", "dispatch.celery_max_unsent", "found 0", "$e"),
    celery("flag of YAML 1.1", '{"celery": {"ssl_active": "<>"}}', "off", "celery.ssl_active", "neither true nor false", "False", "Give True or False"),
    celery("no JSON", '{"celery": {"extra_celery_config": "<>"}}', "task_compression: gzip", "celery.extra_celery_config", "is not a JSON object", "$e"),
    celery("JSON that is no object", '{"celery": {"result_backend_sqlalchemy_engine_options": "<>"}}', "[1]", "celery.result_backend_sqlalchemy_engine_options", "is not a JSON object", "$e"),
    celery("command that fails", '{"celery": {"broker_url_cmd": "<>"}}', "false", "celery.broker_url_cmd", "ended with exit code 1", f"echo -n {URL}", "Correct the command"),
    celery("no broker", '{"celery": {"broker_url": "<>"}}', "", "celery.broker_url", "is empty", "$e"),
    celery("command that prints nothing", '{"celery": {"broker_url_cmd": "<>"}}', "true", "celery.broker_url_cmd", "is empty", f"echo {URL}", "Correct the command"),
    celery("command that is no command", '{"celery": {"broker_url_cmd": "<>"}}', "'", "celery.broker_url_cmd", "cannot be read", f"echo {URL}", "Correct the command"),
    case("empty variable", "", "AIRFLOW_DISPATCH__C__CELERY__BROKER_URL", "is empty", "$e", cfg=of(CELERY, "{}"), env={"AIRFLOW_DISPATCH__C__CELERY__BROKER_URL": "<>"}, files=FILES),
    celery("time-out below none", '{"celery": {"operation_timeout": <>}}', "-1", "celery.operation_timeout", "is not a number of 0 or more", "$e"),
    celery("time-out without end", '{"celery": {"operation_timeout": "<>"}}', "inf", "celery.operation_timeout", "is not a number of 0 or more", "$e"),
    celery("time-out that is no number", '{"celery": {"operation_timeout": "<>"}}', "nan", "celery.operation_timeout", "is not a number of 0 or more", "$e"),
    celery("a worker's option with a wrong value", '{"celery": {<>}}', '"task_acks_late": "maybe"', "celery.task_acks_late", "neither true nor false", "", "leave it out here"),
    kubernetes("requests below none", '{"dispatch": {"kubernetes_concurrency": <>}}', "-3", "dispatch.kubernetes_concurrency", "found -3", "$e"),
    case("workers of an executor without any", '"workers"', "[dispatch] backends.c.slots", "cannot count its workers", "4", "as a number", cfg=of(LOCAL.replace("4", "<>"), "{}"), files=FILES),
    celery("secret that is not there", '{"celery": {<>}}', '"broker_url_secret": "no/such"', "celery.broker_url_secret", "cannot be read", f'"broker_url": "{URL}"', "Correct the command or the secret"),
    kubernetes("number of lines", '{"kubernetes_executor": {"running_pod_log_lines": <>}}', "0", "kubernetes_executor.running_pod_log_lines", *NOT_A_NUMBER),
    kubernetes("flag in words", '{"kubernetes_executor": {"delete_worker_pods": "<>"}}', "never", "kubernetes_executor.delete_worker_pods", "neither true nor false", "$e"),
    kubernetes("jobs in words", '{"dispatch": {"kubernetes_max_unsent": "<>"}}', "one", "dispatch.kubernetes_max_unsent", 'found "one"', "$e"),
    case("template of another kind", "spawn", "[dispatch] backends.c.config.dispatch.local_template", "found \"spawn\"", "$e", cfg=of(LOCAL, '{"dispatch": {"local_template": "<>"}}'), files=FILES),
    case("value of a variable", "many", "AIRFLOW_DISPATCH__C__DISPATCH__CELERY_MAX_UNSENT", *NOT_A_NUMBER, cfg=of(CELERY, "{}"), env={"AIRFLOW_DISPATCH__C__DISPATCH__CELERY_MAX_UNSENT": "<>"}, files=FILES),
    case("value that stands in airflow.cfg, once for all", "0", "[kubernetes_executor] running_pod_log_lines", *NOT_A_NUMBER, cfg=TWO_CLUSTERS, files=FILES),
]  # fmt: skip

RIGHT = {
    "no time-out, in Airflow's words": of(CELERY, '{"celery": {"operation_timeout": 0}}'),
    "a section of a foreign executor's own": of(STRANGE, '{"slurm_executor": {"partition": "p"}}'),
    "a section like one of Airflow's": of(STRANGE, '{"celery_pool": {"size": 4}, "kubernetes": {"namespace": "n"}}'),
    "an option like one of Airflow's": of(STRANGE, '{"celery": {"broker_uri": "x"}, "core": {"dags_folder": "/x"}}'),
    "sections and options of a subclass's own": of(SUBCLASS, '{"mine": {"a": 1}, "celery": {"colour": "red"}, "core": {"dags_folder": "/x"}}'),
}  # fmt: skip
"""Configurations without a finding, by what might be taken for one."""

RIGHT_VARIABLES = {
    "of a service in Kubernetes": (CELERY, "AIRFLOW_DISPATCH_SERVICE_HOST"),
    "of a service in Kubernetes with two dashes": (CELERY, "AIRFLOW_DISPATCH_A__B_SERVICE_HOST"),
    "that ends like one that names a secret": (STRANGE, "AIRFLOW_DISPATCH__C__API_AUTH__JWT_SECRET"),
}
"""Backends and variables without a finding."""

CASES = [*NAMES, *VARIABLES, *VALUES]
