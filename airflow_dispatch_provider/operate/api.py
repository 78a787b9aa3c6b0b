# SPDX-License-Identifier: Apache-2.0
"""The REST API under the API server: ``/dispatch/api/...``, described in ``/dispatch/openapi.json``.

``operate.plugin`` makes it, in the API server alone. Every route needs ``Reader`` or ``LoggedIn`` of
``operate.access``; a test goes through all of them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from airflow_dispatch_provider import __version__
from airflow_dispatch_provider.bridge.database.tables import MOST_IN_A_COLUMN, ReadOnly, TablesMissing
from airflow_dispatch_provider.exceptions import DispatchConfigError, DispatchError
from airflow_dispatch_provider.operate.access import LoggedIn, Reader, forbidden
from airflow_dispatch_provider.operate.answers import Answers
from airflow_dispatch_provider.operate.bundle import BUNDLE
from airflow_dispatch_provider.operate.explaining import explain_now
from airflow_dispatch_provider.operate.model import (
    Backlog,
    Forecast,
    GivenOrder,
    Running,
    StatusForReader,
    Waiting,
)
from airflow_dispatch_provider.operate.orders import LONGEST_REASON, UnknownBackend, WrongOrder
from airflow_dispatch_provider.operate.past import Change, TaskStory
from airflow_dispatch_provider.operate.story import NoSuchTask
from airflow_dispatch_provider.operate.trying import Explained, WhatIf
from airflow_dispatch_provider.operate.uncounted import backlog_of
from airflow_dispatch_provider.operate.views import (
    check_backend_of,
    running_for,
    status_for,
    waiting_for,
    waiting_of_teams,
)
from airflow_dispatch_provider.operate.waiting import UnknownReason, check_reason
from airflow_dispatch_provider.operate.warming import Warming
from airflow_dispatch_provider.operate.what_if import what_if
from airflow_dispatch_provider.routing.model import TaskRef
from airflow_dispatch_provider.routing.routes import task_seed
from airflow_dispatch_provider.settings.file import MAX_BYTES

MOST_LISTED = 1000
"""Waiting tasks in one answer."""

LONGEST = 366 * 24 * 3600
"""Seconds after which an order may run out."""

_NO_NUL = r"^[^\x00]*$"
"""PostgreSQL has no text with that character in it."""

_Name = Annotated[str, Query(max_length=500, pattern=_NO_NUL)]
_Optional = Annotated[str | None, Query(max_length=500, pattern=_NO_NUL)]
_Index = Annotated[int, Query(ge=-1, le=MOST_IN_A_COLUMN)]

router = APIRouter()


def _answers(request: Request) -> Answers:
    found: Answers = request.app.state.answers
    return found


_Asked = Annotated[Answers, Depends(_answers)]


def _warming(request: Request) -> Warming:
    found: Warming = request.app.state.warming
    return found


class OrderRequest(BaseModel):
    """An order about one backend."""

    model_config = ConfigDict(extra="forbid")

    command: Literal["cordon", "drain", "resume", "recall"]
    backend: str = Field(min_length=1, max_length=500)
    team: str | None = Field(None, max_length=500, description="The team of the backend; null: everybody's.")
    reason: str = Field(
        "", max_length=LONGEST_REASON, pattern=_NO_NUL, description="Why: for those who see it."
    )
    seconds: float | None = Field(
        None, gt=0, le=LONGEST, allow_inf_nan=False, description="When it runs out by itself; null: never."
    )


class FileRequest(BaseModel):
    """A routing file that is not in use."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(max_length=MAX_BYTES, description="Its text, in YAML.")
    team: str | None = Field(None, max_length=500)


@router.get("/api/status", summary="How the backends are")
def get_status(
    access: Reader, answers: _Asked, warming: Annotated[Warming, Depends(_warming)], team: _Optional = None
) -> StatusForReader:
    """All backends and schedulers that the user may see, and whether the user may give orders."""
    warming.begin()
    return status_for(access, answers.status(), team)


@router.get("/api/waiting", summary="What waits, and why")
def get_waiting(
    access: Reader,
    answers: _Asked,
    backend: _Optional = None,
    reason: _Optional = None,
    dag_id: _Optional = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 200,
) -> Waiting:
    """Groups of all that waits, and the first tasks of each backend, of Dags that the user may read."""
    check_reason(reason)
    found = waiting_for(access, answers.waiting(backend, reason, dag_id), limit)
    if backend is not None and not (found.groups or found.tasks or found.not_begun):
        check_backend_of(access, answers.status(), backend)
    return replace(found, tasks=answers.usual(found.tasks))


@router.get("/api/running", summary="Who uses the slots")
def get_running(
    access: Reader,
    answers: _Asked,
    backend: _Optional = None,
    dag_id: _Optional = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 200,
) -> Running:
    """Tasks that backends have, of Dags that the user may read, those that they have had for longest first."""
    found = running_for(access, answers.running(backend, dag_id), limit)
    if backend is not None and not found.total:
        check_backend_of(access, answers.status(), backend)
    return found


@router.get("/api/forecast", summary="What cordon or drain would do")
def get_forecast(access: Reader, answers: _Asked, backend: _Name, team: _Optional = None) -> Forecast:
    """How many tasks go on, go elsewhere, or wait."""
    if not access.sees_team(team):
        raise forbidden()
    return answers.forecast(backend, team)


@router.get("/api/changes", summary="What people have changed")
def get_changes(
    access: Reader, answers: _Asked, seconds: Annotated[float, Query(gt=0, le=LONGEST)] = 86_400
) -> list[Change]:
    """Orders, and versions of the routing file, in the last so many seconds; the last ones first, at most 200."""
    return answers.changes(datetime.now(UTC) - timedelta(seconds=seconds), cache(access.sees_team))


@router.get("/api/story", summary="What happened to a task, and why")
def get_story(
    access: Reader,
    answers: _Asked,
    dag_id: _Name,
    run_id: _Name,
    task_id: _Name,
    map_index: _Index = -1,
    try_number: Annotated[int | None, Query(ge=0, le=MOST_IN_A_COLUMN)] = None,
) -> TaskStory:
    """One try of a task, the last one where none is given."""
    if not access.readable({dag_id}):
        raise forbidden()
    reads_log = access.reads_audit_log(dag_id)
    try:
        return answers.story(dag_id, run_id, task_id, map_index, try_number, reads_log)
    except NoSuchTask as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND, str(error)) from None


@router.get("/api/explain", summary="Where a task would go")
def get_explanation(
    access: Reader,
    answers: _Asked,
    queue: _Name,
    dag_id: _Optional = None,
    task_id: _Optional = None,
    run_id: _Optional = None,
    map_index: _Index = -1,
    team: _Optional = None,
) -> Explained:
    """As configured with all slots free, and as the backends are now. Where a route has weights, only a whole task
    (Dag, run and task) says which target is its first."""
    if not access.sees_team(team):
        raise forbidden()
    seed = task_seed(dag_id, run_id, task_id, map_index) if dag_id and run_id and task_id else ""
    settings = answers.settings(team).load()
    return explain_now(settings, TaskRef(queue, dag_id or "", seed), answers.status(), team)


@router.get("/api/backlog", summary="Work for one backend, for an autoscaler")
def get_backlog(access: Reader, answers: _Asked, backend: _Name, team: _Optional = None) -> Backlog:
    """A number for the metrics-api scaler of KEDA: what the backend has, and what waits for it, and what schedulers
    had there whose tasks nobody has taken over yet."""
    found = answers.status()
    backlog = backlog_of(found, backend, team) if access.sees_team(team) else None
    if backlog is None:
        check_backend_of(access, found, backend)
        if found.problem is not None:
            raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, found.problem)
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such backend.")
    return Backlog(backlog)


@router.post("/api/orders", summary="Cordon, drain, resume or recall")
def post_order(access: Reader, answers: _Asked, order: OrderRequest) -> GivenOrder | None:
    """Needs the right to change pools. The answer is the order that was entered; with ``resume`` the one that was in
    force, and null where there was none."""
    if not access.acts_for(order.team):
        raise forbidden()
    reason = order.reason.strip()
    return answers.order(order.command, order.backend, order.team, access.name, reason, order.seconds)


@router.post("/api/what-if", summary="What another routing file would change")
def post_file(access: Reader, answers: _Asked, request: FileRequest) -> WhatIf:
    """Its mistakes, or its changes and the waiting tasks that would find other targets. Nothing is changed."""
    if not access.sees_team(request.team):
        raise forbidden()
    of_team = waiting_of_teams(answers.waiting(None, None, None), {request.team})
    waiting = waiting_for(access, of_team, MOST_LISTED)
    return what_if(answers.settings(request.team), request.file, waiting)


@router.get("/openapi.json", include_in_schema=False)
def get_openapi(access: LoggedIn, request: Request) -> dict[str, Any]:
    """The description of this API, for users who have logged in."""
    app: FastAPI = request.app
    return {**app.openapi(), "servers": [{"url": request.scope.get("root_path", "")}]}


@router.get("/page/dispatch.js", include_in_schema=False)
def get_page(access: LoggedIn) -> FileResponse:
    """The page in Airflow's UI; its address has a part that changes with it."""
    if not BUNDLE.is_file():
        raise HTTPException(status.HTTP_404_NOT_FOUND, "This installation has no page.")
    headers = {"Cache-Control": "private, max-age=604800"}
    return FileResponse(BUNDLE, media_type="text/javascript", headers=headers)


_CODES: tuple[tuple[type[DispatchError], int], ...] = (
    (UnknownBackend, status.HTTP_404_NOT_FOUND),
    (WrongOrder, 422),
    (UnknownReason, 422),
    (TablesMissing, status.HTTP_503_SERVICE_UNAVAILABLE),
    (ReadOnly, status.HTTP_503_SERVICE_UNAVAILABLE),
    (DispatchConfigError, status.HTTP_409_CONFLICT),
)


def _failed(request: Request, error: Exception) -> JSONResponse:
    code = next((code for kind, code in _CODES if isinstance(error, kind)), 500)
    return JSONResponse({"detail": str(error)}, code)


def _refused(request: Request, error: Exception) -> Response:
    """As FastAPI says it, without repeating the input: it may be what JSON has no word for, or what UTF-8 has no
    character for."""
    errors = error.errors() if isinstance(error, RequestValidationError) else ()
    said = [{key: each[key] for key in ("type", "loc", "msg")} for each in errors]
    return Response(json.dumps({"detail": said}), 422, media_type="application/json")


def create_app(answers: Answers) -> FastAPI:
    """The app that Airflow mounts; its routes for users who have not logged in are none."""
    app = FastAPI(
        title="Dispatch",
        description="How the backends of DispatchExecutor are, what waits and why, and orders about them.",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.answers, app.state.warming = answers, Warming(answers)
    app.include_router(router)
    app.add_exception_handler(DispatchError, _failed)
    app.add_exception_handler(RequestValidationError, _refused)
    return app
