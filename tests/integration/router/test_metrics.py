# SPDX-License-Identifier: Apache-2.0
"""The metrics of a router with two backends, as statsd's socket and an OpenTelemetry collector get them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from airflow_dispatch_provider.bridge import metrics
from airflow_dispatch_provider.dispatch import gauges
from airflow_dispatch_provider.lifecycle.survey import COUNTS

from .metrics_program import BACKENDS

PROGRAM = Path(__file__).with_name("metrics_program.py")
WHOLE = {
    metrics.HEARTBEAT,
    metrics.HEARTBEAT_LONGEST,
    metrics.HELD_BACK,
    metrics.API_AWAY,
    metrics.FILE_REFUSED,
}
TAGGED = {
    *(gauge.metric for gauge in gauges.GAUGES),
    *(f"dispatch.{what}" for what in COUNTS),
    metrics.DISPATCHED,
    metrics.FAILURES,
    metrics.HELD_BY_REASON,
}
PLAIN = {
    *(name for backend in BACKENDS for name in gauges.names(backend, "waits_full", "waits_blocked")),
    *(
        f"executor.{what}.{backend}"
        for what in ("open_slots", "running_tasks", "queued_tasks")
        for backend in BACKENDS
    ),
}


def run(folder: Path, **options: object) -> None:
    """
    :param options: of ``[metrics]``
    """
    env = {f"AIRFLOW__METRICS__{name.upper()}": str(value) for name, value in options.items()}
    env["AIRFLOW__DISPATCH__CONFIG_FILE"] = str(folder / "dispatch.yaml")
    env |= {"AIRFLOW__DISPATCH__RETRY_MIN_DELAY": "900", "AIRFLOW__DISPATCH__RETRY_MAX_DELAY": "900"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-m", "integration.router.metrics_program"]
    subprocess.run(command, env={**os.environ, **env}, check=True, timeout=120)


class Datagrams:
    """All that a statsd server would get; line by line."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def take(self) -> list[str]:
        """All that has arrived; the sender has ended, and the kernel has it all."""
        lines: list[str] = []
        while True:
            try:
                lines += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def statsd() -> Iterator[Datagrams]:
    datagrams = Datagrams()
    yield datagrams
    datagrams.close()


def ours(lines: list[str]) -> dict[str, str]:
    """Value and type by name, the last of each, without the prefix; Airflow's own are left out."""
    split = (line.partition(":") for line in lines)
    named = {name.removeprefix("airflow."): value for name, _, value in split}
    return {
        name: value
        for name, value in named.items()
        if name.startswith("dispatch.") or re.match(r"executor\.\w+\.(?!DispatchExecutor)", name)
    }


def test_plain_statsd_gets_every_name_with_the_backend_in_it(statsd: Datagrams, tmp_path: Path) -> None:
    """And none without: it has no tags, so that one backend would overwrite the other."""
    run(tmp_path, statsd_on=True, statsd_host="127.0.0.1", statsd_port=statsd.port)
    got = ours(statsd.take())
    assert got.keys() == PLAIN | WHOLE
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name) for name in got)
    values = {name.replace(".small", ""): value for name, value in got.items() if ".small" in name}
    assert float(values.pop("dispatch.oldest_wait").removesuffix("|g")) >= 10
    assert values == {
        "dispatch.slots": "3.0|g",
        "dispatch.used": "1.0|g",
        "dispatch.ahead": "0.0|g",
        "dispatch.held": "5.0|g",
        "dispatch.circuit_open": "1.0|g",
        "dispatch.cordoned": "0.0|g",
        "dispatch.held_by_reason.waits_full": "0|g",
        "dispatch.held_by_reason.waits_blocked": "5|g",
        "dispatch.dispatched": "3|c",
        "dispatch.began": "1|c",
        "dispatch.ended": "2|c",
        "dispatch.returned": "1|c",
        "dispatch.launch_failures": "1|c",
        "dispatch.failures": "1|c",
        "executor.open_slots": "0|g",
        "executor.running_tasks": "1|g",
        "executor.queued_tasks": "5|g",
    }


def test_an_allow_list_keeps_everything_else_from_being_sent(statsd: Datagrams, tmp_path: Path) -> None:
    """It is Airflow's own."""
    run(
        tmp_path,
        statsd_on=True,
        statsd_host="127.0.0.1",
        statsd_port=statsd.port,
        metrics_allow_list=r"^dispatch\.held\.",
    )
    assert {name for line in statsd.take() for name in [line.partition(":")[0]]} == {
        f"airflow.dispatch.held.{backend}" for backend in BACKENDS
    }


def test_statsd_with_tags_gets_both(statsd: Datagrams, tmp_path: Path) -> None:
    """Tags as InfluxDB has them, behind the name."""
    run(
        tmp_path,
        statsd_on=True,
        statsd_host="127.0.0.1",
        statsd_port=statsd.port,
        statsd_influxdb_enabled=True,
    )
    got = ours(statsd.take())
    assert {name.partition(",")[0] for name in got} == PLAIN | WHOLE | TAGGED
    assert got["dispatch.slots,backend=small"] == "3.0|g"
    assert "dispatch.held_by_reason,backend=small,reason=waits_blocked" in got


class Collector(ThreadingHTTPServer):
    """Takes what OpenTelemetry's SDK exports."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.points: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}
        """The last point by name and attributes."""

    def take_in(self, body: bytes) -> None:
        request = ExportMetricsServiceRequest.FromString(body)
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    for point in data.data_points:
                        attributes = sorted((each.key, each.value.string_value) for each in point.attributes)
                        self.points[metric.name.removeprefix("airflow."), tuple(attributes)] = point


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.take_in(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_opentelemetry_gets_every_name_with_the_backend_as_a_tag(tmp_path: Path) -> None:
    """All that is sent arrives when the process ends."""
    with collector() as server:
        run(tmp_path, otel_on=True, otel_host="127.0.0.1", otel_port=server.server_port)
    names = {name for name, _ in server.points}
    assert {name for name in names if name.startswith("dispatch.")} == {
        name for name in PLAIN if name.startswith("dispatch.")
    } | WHOLE | TAGGED
    for backend in BACKENDS:
        small = (("backend", backend),)
        assert server.points["dispatch.slots", small].as_double == 3
        assert server.points["dispatch.began", small].as_int == 1
        blocked = (*small, ("reason", "waits_blocked"))
        assert server.points["dispatch.held_by_reason", blocked].as_int == 5
        first = (*small, ("reason", "first_choice"))
        assert server.points["dispatch.dispatched", first].as_int == 3
