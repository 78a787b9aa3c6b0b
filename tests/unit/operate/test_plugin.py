# SPDX-License-Identifier: Apache-2.0
"""The plugin that every component of Airflow loads."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from airflow import plugins_manager

from airflow_dispatch_provider.operate import api, bundle
from airflow_dispatch_provider.operate.plugin import DispatchPlugin


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page, whether or not somebody has built one."""
    page = tmp_path / "dispatch.js"
    page.write_text("page")
    monkeypatch.setattr(bundle, "BUNDLE", page)
    return page


def test_airflow_finds_it_by_its_entry_point() -> None:
    """Whatever ``lazy_discover_providers`` says: named in the provider's metadata, too, it would be loaded twice."""
    (entry,) = [each for each in entry_points(group="airflow.plugins") if each.name == "dispatch"]
    assert entry.load() is DispatchPlugin
    assert issubclass(DispatchPlugin, plugins_manager.AirflowPlugin)


def test_components_that_only_load_it_load_nothing_else() -> None:
    """No FastAPI, and none of our other rooms."""
    script = """
import sys
import airflow.plugins_manager
before = {*sys.modules}
import airflow_dispatch_provider.operate.plugin as plugin
plugin.DispatchPlugin.validate()
made = plugin.DispatchPlugin()
made.on_load(), made.listeners, made.macros
print(*sorted({*sys.modules} - before))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ours = "airflow_dispatch_provider"
    loaded = {*done.stdout.splitlines()[-1].split()}
    assert loaded - {ours} == {f"{ours}.operate", f"{ours}.operate.plugin"}


def test_the_api_server_gets_the_app() -> None:
    """The same one each time: Airflow compares and removes what it is given."""
    plugin = DispatchPlugin()
    (app,) = plugin.fastapi_apps
    assert app["url_prefix"] == "/dispatch"
    assert plugin.fastapi_apps is plugin.fastapi_apps


def test_the_page_is_in_the_menu_and_on_the_page_of_a_task(built: Path) -> None:
    """Under routes that differ, and one name: Airflow finds the loaded bundle by it."""
    apps = DispatchPlugin().react_apps
    assert [(app["destination"], app["url_route"]) for app in apps] == [
        ("nav", "dispatch"),
        ("task_instance", "dispatch_task"),
    ]
    assert {app["name"] for app in apps} == {"Dispatch"}


def test_the_address_of_the_page_changes_with_it(built: Path) -> None:
    """Browsers keep it for a week."""
    (before, after) = (_address(built, text) for text in ("page", "another page"))
    assert before != after


def _address(built: Path, text: str) -> str:
    built.write_text(text)
    return str(DispatchPlugin().react_apps[0]["bundle_url"])


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://localhost:8080", ""),
        ("https://example.com/air/flow/", "/air/flow"),
        ("/flow", "/flow"),
        ("", ""),
    ],
)
def test_the_page_is_found_below_the_path_of_airflow(
    built: Path, monkeypatch: pytest.MonkeyPatch, url: str, path: str
) -> None:
    """Airflow 3.1 takes a relative address for one beside its own scripts."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", url)
    assert DispatchPlugin().react_apps[0]["bundle_url"].startswith(f"{path}/dispatch/page/dispatch.js?v=")


def test_without_a_built_page_the_api_is_there_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a checkout, or in a wheel that was built from one."""
    monkeypatch.setattr(bundle, "BUNDLE", tmp_path / "gone.js")
    plugin = DispatchPlugin()
    assert plugin.react_apps == []
    assert len(plugin.fastapi_apps) == 1


def test_an_api_that_cannot_be_made_does_not_stop_the_api_server(
    built: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A later Airflow may have changed what it is built on. The page goes with it."""

    def fail(*args: Any) -> None:
        raise RuntimeError("changed")

    monkeypatch.setattr(api, "create_app", fail)
    plugin = DispatchPlugin()
    with caplog.at_level(logging.ERROR):
        assert plugin.fastapi_apps == []
    assert plugin.react_apps == []
    assert "cannot be made" in caplog.text
