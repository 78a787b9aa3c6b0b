# SPDX-License-Identifier: Apache-2.0
"""Airflow's REST API: what is known about Dags, runs and tasks."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

_PAGE = 100  # Airflow's default for [api] maximum_page_limit

Row = dict[str, Any]


class ClusterError(Exception):
    """A component ended, something took too long, or Airflow refused a request; says which, and the log."""


class AirflowApi:
    """An API server on this machine, asked as an administrator; every call raises ClusterError where it refuses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._token: str | None = None
        # No proxy: everything here is on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def health(self) -> Row:
        """Of each component, asked without a token."""
        health: Row = self._send("GET", "/api/v2/monitor/health")
        return health

    def dag_run(self, dag_id: str, run_id: str) -> Row:
        row: Row = self.request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{_quoted(run_id)}")
        return row

    def task_instances(self, dag_id: str, run_id: str) -> list[Row]:
        """All task instances of a run, as the REST API describes them."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances"
        return self._all_pages(path, "task_instances", {})

    def event_logs(self, **filters: str) -> list[Row]:
        """Rows of Airflow's event log, oldest first, for example ``event_logs(dag_id=..., event=...)``."""
        return self._all_pages("/api/v2/eventLogs", "event_logs", {**filters, "order_by": "event_log_id"})

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """The log of one try of a task, as the UI shows it."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances/{task_id}/logs/{try_number}"
        lines = self.request("GET", path)["content"]
        return "\n".join(
            str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in lines
        )

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Any:
        """Call the REST API as an administrator; returns the decoded answer, or raises ClusterError."""
        self._token = self._token or self._send("GET", "/auth/token")["access_token"]
        query = f"?{urllib.parse.urlencode(params)}" if params else ""
        return self._send(method, path + query, body)

    def raise_import_errors(self) -> None:
        """Raise ClusterError where a file with Dags could not be imported."""
        errors = self.request("GET", "/api/v2/importErrors")["import_errors"]
        if errors:
            listed = "\n".join(f"{error['filename']}: {error['stack_trace']}" for error in errors)
            raise ClusterError(f"Dags could not be imported:\n{listed}")

    def _all_pages(self, path: str, key: str, params: Mapping[str, object]) -> list[Row]:
        rows: list[Row] = []
        while True:
            page = self.request("GET", path, {**params, "limit": _PAGE, "offset": len(rows)})
            rows += page[key]
            if not page[key] or len(rows) >= page["total_entries"]:
                return rows

    def _send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=120) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            answer = error.read().decode(errors="replace")[:2000]
            raise ClusterError(f"{method} {path} was answered with {error.code}: {answer}") from error


def _quoted(run_id: str) -> str:
    return urllib.parse.quote(run_id, safe="")
