# SPDX-License-Identifier: Apache-2.0
"""The router as the benchmarks of outages run it: each scheduler writes down how long its heartbeats take."""

from __future__ import annotations

import os
import time
from pathlib import Path

from airflow_dispatch_provider.executors.dispatch_executor import DispatchExecutor


class TimedDispatchExecutor(DispatchExecutor):
    """Appends a line for each heartbeat to a file for each process: when it began (seconds since 1970), how long
    it took (milliseconds), and how many slots were taken after it."""

    def start(self) -> None:
        super().start()
        path = Path(os.environ["CHAOS_HEARTBEATS"]) / f"{os.getpid()}.txt"
        self._timings = path.open("a", buffering=1)  # whole lines, also where the process is killed

    def heartbeat(self) -> None:
        at, began = time.time(), time.perf_counter()
        super().heartbeat()
        milliseconds = (time.perf_counter() - began) * 1e3
        self._timings.write(f"{at:.4f} {milliseconds:.4f} {self.slots_occupied}\n")
