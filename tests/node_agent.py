# SPDX-License-Identifier: Apache-2.0
"""A node for a Kubernetes API server without nodes: scheduler and kubelet in one, with local processes as pods.

In a test::

    with NodeAgent(server.kubeconfig(), env={"PATH": ...}) as agent:
        ...

or as a program: ``python tests/node_agent.py --kubeconfig FILE --env PATH="$PATH"``.

Only the first container of a pod is run; init containers and other containers are reported as done. Volumes,
probes, restarts, and variables from secrets and config maps are not there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pod_fates
from kube_client import Access, KubeClient, Refused
from kubelet_logs import log_server
from pod_fates import ANNOTATION, Fate

Json = dict[str, Any]
Decide = Callable[[Json], Fate]

_CANNOT_START = 128
_KILLED = 137
_LOST = (404, 409)


class Pod:
    """One pod, from when it was first seen until it is gone."""

    def __init__(self, manifest: Json) -> None:
        self.manifest = manifest
        self.deleting = asyncio.Event()
        self.started = ""
        self.ended = False
        self.log: Path | None = None
        self.task: asyncio.Task[None] | None = None

    ...
