# SPDX-License-Identifier: Apache-2.0
"""The file is read again when it changes; a bad version never replaces a good one."""

from __future__ import annotations

import os

import pytest
from unit.settings.fakes import FakeConf, load, problems

from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.settings.changes import is_same
from airflow_dispatch_provider.settings.source import SettingsSource

GOOD = "backends: {a: {executor: LocalExecutor, slots: 4}, b: {executor: CeleryExecutor, slots: 8}}\ndefault: a\n"


class File:
    """A config_file whose versions never have the same time stamp."""

    def __init__(self, path):
        self.path, self.time = path, 1_000_000_000

    def write(self, text):
        self.path.write_text(text)
        self.touch()

    def swap(self, text):
        """Put another file in its place, with the very time stamp and size of the old one."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        os.utime(new, ns=(self.time, self.time))
        new.rename(self.path)

    def touch(self):
        self.time += 1_000_000_000
        os.utime(self.path, ns=(self.time, self.time))


@pytest.fixture
def file(tmp_path):
    file = File(tmp_path / "dispatch.yaml")
    file.write(GOOD)
    return file


@pytest.fixture
def source(file):
    source = SettingsSource(FakeConf({"config_file": str(file.path)}))
    source.load()
    return source


def test_unchanged(source):
    """A file that nobody touched is not another one."""
    assert not source.changed()


def test_options_never_change():
    """Without a file there is nothing to watch."""
    source = SettingsSource(FakeConf({"backends": '{"a": {"executor": "LocalExecutor", "slots": 1}}'}))
    assert not source.changed()
    source.load()
    assert not source.changed()


def test_changed_slots_cordon_routes_and_default_are_taken_over(source, file):
    """Changes that need no other executor are made on the fly."""
    file.write(
        GOOD.replace("slots: 4", "slots: 5, cordoned: true").replace(
            "default: a", "default: b\nroutes: [{queue: x, to: [b]}]"
        )
    )
    assert source.changed()
    settings = source.reload()
    assert (settings.backends["a"].slots, settings.backends["a"].cordoned) == (5, True)
    assert [route.name for route in settings.routes] == ["x"]
    assert settings.default.to[0].backend == "b"
    assert not source.changed()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("b: {executor: CeleryExecutor, slots: 8}", "c: {executor: CeleryExecutor, slots: 8}"),
        ("a: {executor: LocalExecutor", "a: {executor: x.Other"),
        ("slots: 4", "slots: 4, config: {celery: {x: 1}}"),
    ],
)
def test_backends_may_change(source, file, old, new):
    """Whichever there are: nothing is refused because it is another set of executors."""
    file.write(GOOD.replace(old, new))
    assert source.reload() == load({"config_file": str(file.path)})
    assert source.refused is None


def test_file_may_be_refused_by_who_reads_it(source, file):
    """For mistakes that cannot be seen in it: it is not the last good version, until it changes again."""
    file.write(GOOD.replace("slots: 4", "slots: 5"))
    source.reload()
    error = DispatchConfigError([])
    source.refuse(error)
    assert (source.refused, source.changed()) == (error, False)
    file.write(GOOD)
    source.reload()
    assert source.refused is None


def test_bad_version_is_reported_once(source, file):
    """A bad file is refused; it is not another one until it changes again."""
    file.write("backends: [")
    assert source.changed()
    assert "is not YAML" in problems(source.reload)[0]
    assert not source.changed()
    file.write(GOOD)
    assert source.changed()
    assert source.reload().default.to[0].backend == "a"


def test_file_that_goes_away_and_comes_back(source, file):
    """A missing file is reported once, and read when it is there again."""
    file.path.unlink()
    assert source.changed()
    assert "No such file" in problems(source.reload)[0]
    assert not source.changed()
    file.write(GOOD)
    assert source.changed()
    source.reload()


def test_file_swapped_by_rename(source, file):
    """Another file under the same name is noticed though time and size are equal."""
    file.swap(GOOD.replace("slots: 4", "slots: 5"))
    assert source.changed()
    assert source.reload().backends["a"].slots == 5


def test_file_behind_a_link(tmp_path):
    """A link that is turned to another file is noticed, as a mounted ConfigMap does it."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(GOOD)
    link = tmp_path / "dispatch.yaml"
    link.symlink_to("one")
    source = SettingsSource(FakeConf({"config_file": str(link)}))
    source.load()
    (tmp_path / "link").symlink_to("two")
    (tmp_path / "link").rename(link)
    assert source.changed()


def test_bad_file_at_start_and_reload_before_load(file):
    """Without a good version, reload is load: any good file is taken."""
    source = SettingsSource(FakeConf({"config_file": str(file.path)}))
    file.write("[]")
    assert problems(source.load) == [f"{file.path}: found an empty list. Write backends, routes and default."]
    file.write(GOOD)
    assert source.reload().backends["b"].slots == 8


def test_changed_costs_no_configuration_lookup(source):
    """Airflow's configuration, slow to ask, is left alone in every heartbeat."""
    source._reader._conf.options = {"config_file": RuntimeError()}
    assert not source.changed()


def settings_with(backends):
    return load({"backends": backends, "default": "a"})


OTHERWISE = [
    ('{"executor": "LocalExecutor", "slots": 9, "cordoned": true}', True),
    (
        '{"executor": "airflow_dispatch_provider.executors.local_executor.LocalExecutor", "slots": 1}',
        True,
    ),
    ('{"executor": "CeleryExecutor", "slots": 1}', False),
    ('{"executor": "LocalExecutor", "slots": 1, "config": {"x": {"y": "z"}}}', False),
]


@pytest.mark.parametrize(("backend", "same"), OTHERWISE)
def test_one_engine_serves_for_both(backend, same):
    """Class and options need a new one, in either direction; slots, cordon and another name of a class do not."""
    old = settings_with('{"a": {"executor": "LocalExecutor", "slots": 1}}').backends["a"]
    new = settings_with(f'{{"a": {backend}}}').backends["a"]
    assert is_same(old, new) is is_same(new, old) is same
