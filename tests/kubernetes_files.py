# SPDX-License-Identifier: Apache-2.0
"""Texts of a kubeconfig and a pod template, for tests in which nothing connects to a cluster."""

from __future__ import annotations

POD_TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec: {containers: [{name: base, image: airflow}], restartPolicy: Never}
"""


def kubeconfig(server: str = "https://k.example:6443", user: str = "{}") -> str:
    """A kubeconfig with the context ``c``, its cluster ``k`` and user ``u``; tests replace parts of the text.

    :param user: how the user logs in, as YAML
    """
    return f"""
apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: k, user: u}}}}]
clusters: [{{name: k, cluster: {{server: "{server}"}}}}]
users: [{{name: u, user: {user}}}]
"""
