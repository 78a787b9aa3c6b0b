# SPDX-License-Identifier: Apache-2.0
"""Who may see and do what, with Airflow's FAB auth manager, where its provider is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ..database import prepare
from .conftest import Server, serving

pytestmark = pytest.mark.integration("sqlite")

fab = pytest.importorskip(
    "airflow.providers.fab.auth_manager.fab_auth_manager", reason="FAB is not installed"
)

ROLES = {"reader": "Viewer", "author": "User", "operator": "Op", "boss": "Admin", "nobody": "Public"}

_CREATE = """
import sys
from airflow.cli.cli_parser import get_parser

for user in sys.argv[1:]:
    name, role = user.split(":")
    names = ["--firstname", name, "--lastname", name, "--email", f"{name}@example.com"]
    create = ["users", "create", "--username", name, "--role", role, "--password", f"{name}-password", *names]
    arguments = get_parser().parse_args(create)
    arguments.func(arguments)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fab")
    env = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__CORE__AUTH_MANAGER": f"{fab.__name__}.FabAuthManager",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", env["AIRFLOW__CORE__AUTH_MANAGER"])
        prepare(env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], folder)
    users = [f"{name}:{role}" for name, role in ROLES.items()]
    create = [sys.executable, "-c", _CREATE, *users]
    subprocess.run(create, env={**os.environ, **env}, check=True, capture_output=True)
    with serving(folder, env) as found:
        yield found


ORDER = {"command": "cordon", "backend": "local", "reason": "a test"}


@pytest.mark.parametrize("user", ["reader", "author"])
def test_a_reader_sees_and_cannot_act(server: Server, user: str) -> None:
    """Neither may edit pools."""
    token = server.token(user)
    found = server.send("/dispatch/api/status", token)
    assert (found.code, found.json["may_act"]) == (200, False)
    assert "it_dag" in server.send("/dispatch/api/waiting", token).text
    assert server.send("/dispatch/api/orders", token, ORDER).code == 403


def test_the_audit_log_is_told_to_those_who_may_read_it(server: Server) -> None:
    """Here nobody but an admin."""
    told = {
        user: "clear by ann"
        in server.send("/dispatch/api/story?dag_id=it_dag&run_id=r&task_id=t", server.token(user)).text
        for user in ("reader", "operator", "boss")
    }
    assert told == {"reader": False, "operator": False, "boss": True}


@pytest.mark.parametrize("user", ["operator", "boss"])
def test_whoever_may_edit_pools_may_give_orders(server: Server, user: str) -> None:
    """In their own name."""
    token = server.token(user)
    assert server.send("/dispatch/api/status", token).json["may_act"] is True
    assert server.send("/dispatch/api/orders", token, ORDER).json["by"]
    assert server.send("/dispatch/api/orders", token, {**ORDER, "command": "resume"}).code == 200


def test_the_public_role_sees_nothing(server: Server) -> None:
    """It has no permissions."""
    token = server.token("nobody")
    for path in ("status", "waiting", "story?dag_id=it_dag&run_id=r&task_id=t", "explain?queue=gpu"):
        assert server.send(f"/dispatch/api/{path}", token).code == 403
    assert server.send("/dispatch/api/orders", token, ORDER).code == 403
