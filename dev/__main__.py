# SPDX-License-Identifier: Apache-2.0
"""``python dev NAME ...`` is what ./dev/NAME runs, with a Python in which nothing need be installed."""

from __future__ import annotations

import sys
from importlib import import_module

from devkit.environment import run

COMMANDS = {
    "bench": "bench.command",
    "chaos": "chaos",
    "check_resolves": "checks.resolves",
    "check_wheel": "checks.wheel",
    "demo": "demo.command",
    "docs": "docs",
    "env": "env",
    "helm-build": "programs.helm_build",
    "kube-build": "programs.kube_build",
    "kube-server": "servers.kube",
    "lock": "lock",
    "mutants": "checks.mutants",
    "node-agent": "servers.node_agent",
    "page": "programs.page_build",
    "peer-tests": "checks.peer_tests",
    "shell": "shell.command",
    "simulate": "simulate",
    "test": "run_tests",
}

if __name__ == "__main__":
    run(import_module(f"devkit.{COMMANDS[sys.argv.pop(1)]}").main)
