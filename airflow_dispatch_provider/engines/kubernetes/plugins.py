# SPDX-License-Identifier: Apache-2.0
"""Processes that the Kubernetes client starts: the plugins for credentials that a kubeconfig names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any


class PluginLoop(asyncio.SelectorEventLoop):
    """An event loop that can end the processes which were started in it: the client itself lets go of a plugin that
    takes too long, and leaves it running."""

    def __init__(self) -> None:
        super().__init__()
        self._processes: list[asyncio.SubprocessTransport] = []

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        """Called by ``asyncio.create_subprocess_exec``. Each has a process group of its own."""
        transport, protocol = await super().subprocess_exec(*args, **{**kwargs, "start_new_session": True})
        self._processes = [each for each in self._processes if each.get_returncode() is None]
        self._processes.append(transport)
        return transport, protocol

    def end_processes(self) -> None:
        """With their children."""
        for transport in self._processes:
            if transport.get_returncode() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(transport.get_pid(), signal.SIGKILL)
            transport.close()
        self._processes = []

    def close(self) -> None:
        """End what still runs, too: a transport cannot be closed after its loop."""
        if not self.is_closed():
            self.end_processes()
        super().close()


def end_plugins() -> None:
    """Of the event loop that runs."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, PluginLoop):
        loop.end_processes()
