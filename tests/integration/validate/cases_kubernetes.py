# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  (a table: a case is a line)
"""Clusters, namespaces and pods that cannot be, as far as that is known without asking an API server."""

from __future__ import annotations

from kubernetes_files import POD_TEMPLATE

from .cases_options import FILES, KUBECONFIG, KUBERNETES, LOCAL, kubernetes, of
from .harness import Case, airflow_cfg, case

CLIENTS = "airflow_dispatch_provider.no_such"
SECTION = "kubernetes_executor"


def option(
    name: str, config: str, wrong: str, key: str, found: str, mended: str, remedy: str = "", **more: object
) -> Case:
    """A hole in ``[kubernetes_executor]`` of a backend."""
    return kubernetes(
        name, f'{{"{SECTION}": {{{config}}}}}', wrong, f"{SECTION}.{key}", found, mended, remedy, **more
    )


def in_file(
    name: str,
    file: str,
    text: str,
    wrong: str,
    key: str,
    found: str,
    mended: str,
    remedy: str = "",
    **more: object,
) -> Case:
    """A hole in one of the files that airflow.cfg names."""
    cfg = of(KUBERNETES, "{}")
    return case(
        name, wrong, f"[{SECTION}] {key}", found, mended, remedy, cfg=cfg, files={**FILES, file: text}, **more
    )


CLUSTERS = [
    option("kubeconfig that is missing", '"config_file": "<>"', "/no/such/file", "config_file", "does not exist", "{home}/kubeconfig", "Give the path"),
    option("kubeconfig that is none", '"config_file": "<>"', "{home}/pod.yaml", "config_file", "names a file without contexts", "{home}/kubeconfig", "Give the path"),
    option("kubeconfig that is no YAML", '"config_file": "<>"', "{home}/broken.yaml", "config_file", "is no kubeconfig", "{home}/kubeconfig", "Give the path", files={"broken.yaml": "kind: [Config"}),
    option("context of another kubeconfig", '"cluster_context": "<>"', "production", "cluster_context", "no context of the kubeconfig", "c", "Use one of these: c"),
    option("in no cluster", '"in_cluster": <>', "true", "in_cluster", "this is no pod of a cluster", "false", "Set in_cluster to False", severity="warning"),
    option("kubeconfig that is a folder", '"config_file": "<>"', "{home}", "config_file", "a file that is a folder", "{home}/kubeconfig", "Give the path"),
    option("kubeconfig that is a device", '"config_file": "<>"', "/dev/zero", "config_file", "a file that is a device", "{home}/kubeconfig", "Give the path"),
    in_file("plugin that is not installed", "kubeconfig", KUBECONFIG.replace("{token: t}", "{exec: {apiVersion: client.authentication.k8s.io/v1, command: <>}}"), "no-such-plugin", "config_file", "exec command cannot be found", "sh", "Correct it there"),
    option("kubeconfig that cannot be looked at", '"config_file": "<>"', "{home}/" + "y" * 300, "config_file", "cannot be read (File name too long)", "{home}/kubeconfig", "Give the path"),
    in_file("cluster without a server", "kubeconfig", KUBECONFIG.replace('server:', '<>:'), "sever", "config_file", "its cluster 'k' has no server", "server", "Correct it there"),
    in_file("server without a scheme", "kubeconfig", KUBECONFIG.replace('https://', '<>'), "", "config_file", "is no https:// URL", "https://", "Correct it there"),
    in_file("key one level too high", "kubeconfig", KUBECONFIG.replace('user: {token: t}', '<>'), "client-key-data: hunter2", "config_file", "the user 'u' has no key 'user'", "user: {}", "Correct it there"),
    in_file("context without a user's entry", "kubeconfig", KUBECONFIG.replace("user: u}", "user: <>}"), "other", "config_file", "it has no user 'other'", "u", "Correct it there"),
    in_file("users that are no list", "kubeconfig", KUBECONFIG.replace("[{name: u, user: {token: t}}]", "<>"), "{u: {token: hunter2}}", "config_file", "is no kubeconfig (users is no list)", "[{name: u, user: {token: t}}]", "Give the path of a kubeconfig"),
    in_file("authority that is no base64", "kubeconfig", KUBECONFIG.replace('server:', '<>server:'), 'certificate-authority-data: "!!!", ', "config_file", "certificate-authority-data that is no PEM file in base64", "", "Correct it there"),
    in_file("token that is missing", "kubeconfig", KUBECONFIG.replace('{token: t}', '{<>}'), "tokenFile: /no/such", "config_file", "tokenFile whose file cannot be read", "token: t", "Correct it there"),
    in_file("context without its cluster", "kubeconfig", KUBECONFIG.replace("cluster: k,", "cluster: <>,"), "other", "config_file", "gives no way to the cluster", "k", "Correct it there"),
    in_file("authority that is missing", "kubeconfig", KUBECONFIG.replace('server:', '<>server:'), "certificate-authority: /no/such.pem, ", "config_file", "certificate-authority whose file cannot be read", "", "Correct it there"),
    in_file("client certificate that is missing", "kubeconfig", KUBECONFIG.replace('{token: t}', '{<>token: t}'), "client-certificate: my.crt, ", "config_file", "client-certificate whose file cannot be read", "", "Correct it there"),
    option("authority of its own", '"ssl_ca_cert": "<>"', "/no/such.pem", "ssl_ca_cert", "cannot be read", "", "Correct the path"),
    option("authority that is a folder", '"ssl_ca_cert": "<>"', "{home}", "ssl_ca_cert", "is a folder", "", "Correct the path"),
    option("authority that is no PEM", '"ssl_ca_cert": "<>"', "{home}/pod.yaml", "ssl_ca_cert", "without certificates", "", "Give a PEM file"),
    case("factory without its twin", f', "client_factory": "{CLIENTS}.client"', "[dispatch] backends.c.config.kubernetes_executor.client_factory", "is set without async_client_factory", "", "Set async_client_factory as well", cfg=of(KUBERNETES, f'{{"{SECTION}": {{"namespace": "n"<>}}}}'), files=FILES),
    case("twin without its factory", f', "async_client_factory": "{CLIENTS}.client"', "[dispatch] backends.c.config.kubernetes_executor.async_client_factory", "is set without client_factory", "", "Set client_factory as well", cfg=of(KUBERNETES, f'{{"{SECTION}": {{"namespace": "n"<>}}}}'), files=FILES),
    option("factory that cannot be imported", '"namespace": "n"<>', f', "client_factory": "{CLIENTS}.client", "async_client_factory": "{CLIENTS}.client"', "client_factory", "cannot be imported", "", "Name a function"),
    option("factory that is none", '"namespace": "n"<>', ', "client_factory": "os.path", "async_client_factory": "os.path"', "client_factory", "nothing that can be called", "", "Name a function"),
    option("factory that raises", '"namespace": "n"<>', ', "client_factory": "os.getcwd", "async_client_factory": "os.getcwd"', "client_factory", "gives no client: AttributeError", "", "Name a function"),
]  # fmt: skip

NAMESPACES = [
    option("namespace with a capital", '"namespace": "<>"', "Team_A", "namespace", "which can be no namespace", "$e"),
    option("namespace too long", '"namespace": "<>"', "n" * 64, "namespace", "which can be no namespace", "$e"),
    option("blank in the list", '"multi_namespace_mode": true, "multi_namespace_mode_namespace_list": "<>"', "a, b", "multi_namespace_mode_namespace_list", "' b', which can be no namespace", "a,b", "Use small letters"),
    option("comma at the end of the list", '"multi_namespace_mode": true, "multi_namespace_mode_namespace_list": "<>"', "a,", "multi_namespace_mode_namespace_list", "which can be no namespace", "a", "Use small letters"),
    option("list that is not used", '"multi_namespace_mode": <>, "multi_namespace_mode_namespace_list": "a,b"', "false", "multi_namespace_mode_namespace_list", "is not used without multi_namespace_mode", "true", "Set multi_namespace_mode to True", severity="warning"),
    case("namespace of another backend", "", "[dispatch] backends.d", "as the backend 'c' does", '"kubernetes_executor": {"namespace": "n"}', "Give each its own", cfg=airflow_cfg(f'{{"c": {KUBERNETES % "{}"}, "d": {KUBERNETES % "{<>}"}, "l": {LOCAL % "{}"}}}', '[{"queue": "l", "to": ["l"]}]', '["c", "d"]', more="[kubernetes_executor]\nin_cluster = False\nconfig_file = {home}/kubeconfig\npod_template_file = {home}/pod.yaml\n"), files=FILES),
]  # fmt: skip

TWO = '{{"c": {}, "d": {}, "l": {}}}'.format(
    KUBERNETES % "{}", KUBERNETES % '{"kubernetes_executor": {"<>": "n"}}', LOCAL % "{}"
)
NAMESPACES.append(
    case("namespace misspelt beside another backend", "namespce", "[dispatch] backends.d.config.kubernetes_executor.namespce", "does not have", "$1", cfg=airflow_cfg(TWO, '[{"queue": "l", "to": ["l"]}]', '["c", "d"]', more="[kubernetes_executor]\nin_cluster = False\nconfig_file = {home}/kubeconfig\npod_template_file = {home}/pod.yaml\n"), files=FILES),
)  # fmt: skip

PODS = [
    option("template that is missing", '"pod_template_file": "<>"', "/no/such.yaml", "pod_template_file", "cannot be read", "{home}/pod.yaml", "Give the path"),
    option("template that is a folder", '"pod_template_file": "<>"', "{home}", "pod_template_file", "is a folder", "{home}/pod.yaml", "Give the path"),
    option("template that is a device", '"pod_template_file": "<>"', "/dev/zero", "pod_template_file", "is a device", "{home}/pod.yaml", "Give the path"),
    option("template that is no YAML", '"pod_template_file": "<>"', "{home}/broken.yaml", "pod_template_file", "is not valid", "{home}/pod.yaml", "Give the path", files={"broken.yaml": "kind: [Pod"}),
    in_file("template of another kind", "pod.yaml", POD_TEMPLATE.replace("kind: Pod", "kind: <>"), "Deployment", "pod_template_file", "the kind 'Deployment'", "Pod", "kind: Pod"),
    in_file("key of a template misspelt", "pod.yaml", POD_TEMPLATE.replace("restartPolicy", "<>"), "restartPolcy", "pod_template_file", "'restartPolcy', which is no key", "$1", "Did you mean", severity="warning"),
    in_file("key of a template in snake case", "pod.yaml", POD_TEMPLATE.replace("image: airflow", "image: airflow, <>: Always"), "image_pull_policy", "pod_template_file", "'image_pull_policy', which is no key", "$1", "Did you mean", severity="warning"),
    in_file("spec of a template misspelt", "pod.yaml", POD_TEMPLATE.replace("spec:", "<>:"), "specs", "pod_template_file", "'specs', which is no key", "$1", "Did you mean"),
    *(
        in_file(f"{place} of another kind", "pod.yaml", POD_TEMPLATE.replace("restartPolicy: Never", "restartPolicy: Never, <>"), wrong, "pod_template_file", f": spec.{place} is {found}", mended, "Correct it there")
        for place, wrong, found, mended in (
            ("hostNetwork", "hostNetwork: 'false'", "text, and not true or false", "hostNetwork: false"),
            ("imagePullSecrets[0]", "imagePullSecrets: [reg]", "text, and not an object", "imagePullSecrets: [{name: reg}]"),
            ("tolerations", "tolerations: {key: a}", "an object, and not a list", "tolerations: [{key: a}]"),
            ("nodeSelector", "nodeSelector: [a]", "a list, and not an object", "nodeSelector: {a: b}"),
            ("initContainers[0].command", "initContainers: [{name: i, command: sh -c ls}]", "text, and not a list", "initContainers: [{name: i, command: [sh]}]"),
            ("initContainers[0].securityContext.privileged", "initContainers: [{name: i, securityContext: {privileged: 'false'}}]", "text, and not true or false", "initContainers: [{name: i, securityContext: {privileged: false, runAsUser: 0}}]"),
            ("serviceAccountName", "serviceAccountName: [a]", "a list, and not text", "serviceAccountName: a"),
        )
    ),
    in_file("pods that start again", "pod.yaml", POD_TEMPLATE.replace("restartPolicy: Never", "<>"), "restartPolicy: Always", "pod_template_file", "the restartPolicy Always", "$e", severity="warning"),
    in_file("pods that start again by default", "pod.yaml", POD_TEMPLATE.replace("restartPolicy: Never", "<>"), "", "pod_template_file", "has no restartPolicy", "$e", severity="warning"),
    in_file("template without the container", "pod.yaml", POD_TEMPLATE.replace("name: base", "name: <>"), "main", "pod_template_file", "has no container 'base'", "base", "Call the container of the task base"),
    in_file("template without containers", "pod.yaml", POD_TEMPLATE.replace("containers: [{name: base, image: airflow}]", "containers: [<>]"), "", "pod_template_file", "has no container 'base'", "{name: base, image: airflow}", "Call the container of the task base"),
    option("no template and no image", '"pod_template_file": "<>"', "", "pod_template_file", "is missing, and so is an image", "{home}/pod.yaml", "Name a pod template", severity="warning"),
    case("image without a tag", "", "[dispatch] backends.c.config.kubernetes_executor.worker_container_repository", "is set without worker_container_tag", ', "worker_container_tag": "1"', "Set worker_container_tag", severity="warning", cfg=of(KUBERNETES, f'{{"{SECTION}": {{"pod_template_file": "", "worker_container_repository": "r"<>}}}}'), files=FILES),
    option("camel case for the deletion", '"delete_option_kwargs": "{<>: 1}"', r'\"gracePeriodSeconds\"', "delete_option_kwargs", "'gracePeriodSeconds', which V1DeleteOptions does not", r'\"$1\"'),
    option("deletion misspelt", '"delete_option_kwargs": "{<>: 1}"', r'\"grace_period\"', "delete_option_kwargs", "'grace_period', which V1DeleteOptions does not", r'\"$1\"'),
    option("grace period in words", '"delete_option_kwargs": "{\\"grace_period_seconds\\": <>}"', r'\"ten\"', "delete_option_kwargs", "grace_period_seconds that is not a whole number", "$e", "Give a whole number"),
    option("grace period below zero", '"delete_option_kwargs": "{\\"grace_period_seconds\\": <>}"', "-1", "delete_option_kwargs", "grace_period_seconds that is not a whole number", "$e", "Give a whole number"),
    option("propagation misspelt", '"delete_option_kwargs": "{\\"propagation_policy\\": <>}"', r'\"foregrund\"', "delete_option_kwargs", "a propagation_policy that does not exist", r'\"Foreground\"', "Foreground"),
    option("time-out that is no number", '"kube_client_request_args": "{\\"_request_timeout\\": <>}"', "NaN", "kube_client_request_args", "a _request_timeout that is no time", "30", "Give seconds"),
    option("time-out in words", '"kube_client_request_args": "{\\"_request_timeout\\": <>}"', r'\"long\"', "kube_client_request_args", "a _request_timeout that is no time", "30", "Give seconds"),
    option("argument that is not used", '"kube_client_request_args": "{<>: 30}"', r'\"_preload_content\"', "kube_client_request_args", "'_preload_content', which is not used", r'\"$1\"', severity="warning"),
]  # fmt: skip
CASES = [*CLUSTERS, *NAMESPACES, *PODS]

RIGHT = [
    '{"kubernetes_executor": {"kube_client_request_args": "{\\"_request_timeout\\": null}"}}',
    '{"kubernetes_executor": {"kube_client_request_args": "{\\"_request_timeout\\": [5, 30.5]}"}}',
    '{"kubernetes_executor": {"delete_option_kwargs": "{\\"grace_period_seconds\\": 0, \\"propagation_policy\\": \\"Foreground\\"}"}}',
]
"""Of a Kubernetes backend's config: no finding."""
