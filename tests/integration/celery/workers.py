# SPDX-License-Identifier: Apache-2.0
"""Plain ``airflow celery worker`` processes, without anything else of Airflow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

EXECUTOR = "airflow_dispatch_provider.executors.celery_executor.CeleryExecutor"


class Worker:
    """One worker of two processes; ends with the block."""

    def __init__(
        self, folder: Path, broker: str, result_backend: str, queues: str = "default", **env: str
    ) -> None:
        self._log = folder / "worker.log"
        self._queues = queues
        self._env = {
            **os.environ,
            "AIRFLOW__CORE__EXECUTOR": EXECUTOR,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": result_backend,
            **env,
        }

    def __enter__(self) -> Worker:
        arguments = ["--queues", self._queues, "--concurrency", "2", "--skip-serve-logs"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "celery", "worker", *arguments],
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: Any) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of its main process."""
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self, app: Any, timeout: float = 90) -> None:
        """Until it answers Celery's ping."""
        deadline = time.monotonic() + timeout
        while not app.control.ping(timeout=0.5):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(
                    f"The worker {'ended' if ended else 'is not ready'}: {self._log.read_text()}"
                )
