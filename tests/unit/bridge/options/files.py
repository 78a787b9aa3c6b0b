# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: k, cluster: {server: "https://k.example:6443/"}}]
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: PLUGIN}}}]
contexts: [{name: c, context: {cluster: k, user: u}}]
"""
"""With a plugin that would log in."""

POD = """
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec: {containers: [{name: base, image: airflow}], restartPolicy: Never}
"""
