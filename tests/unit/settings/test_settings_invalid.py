# SPDX-License-Identifier: Apache-2.0
"""Every wrong configuration is answered by all of its mistakes, each with place, value and remedy."""

# ruff: noqa: UP031 - JSON is full of braces, which str.format would want doubled.
from __future__ import annotations

import os
from pathlib import Path

import pytest
from unit.settings.fakes import FakeConf, load, problems
from unit.settings.invalid import BACKENDS, FILES, INLINE, LOCAL

from airflow_dispatch_provider.exceptions import DispatchConfigError
from airflow_dispatch_provider.settings.parse import Raw
from airflow_dispatch_provider.settings.source import SettingsSource

SECRET = "hunter2-s3cret"


def expected_problems():
    expected = {}
    for line in Path(__file__).with_name("invalid_problems.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("* "):
            expected[line[2:]] = found = []
        else:
            found.append(line.strip())
    return expected


EXPECTED = expected_problems()


def test_every_case_is_pinned():
    """No case without an answer, no answer without a case."""
    assert list(EXPECTED) == [*INLINE, *FILES]


@pytest.mark.parametrize("case", INLINE)
def test_options(case):
    """Mistakes in the options of ``[dispatch]``."""
    assert problems(lambda: load(INLINE[case])) == EXPECTED[case]


@pytest.mark.parametrize("case", FILES)
def test_file(case, tmp_path, monkeypatch):
    """Mistakes in ``config_file``."""
    monkeypatch.chdir(tmp_path)
    Path("d.yaml").write_text(FILES[case], encoding="utf-8")
    assert problems(lambda: load({"config_file": "d.yaml"})) == EXPECTED[case]


def test_message_lists_all_with_a_count():
    """The text of the error, as the log and the command line show it."""
    with pytest.raises(DispatchConfigError) as refused:
        load({"backends": '{"a": {}}'})
    assert str(refused.value) == (
        "The [dispatch] configuration has 2 mistakes:\n"
        "  - [dispatch] backends.a.executor: is missing."
        " Give LocalExecutor, CeleryExecutor, KubernetesExecutor or the import path of an executor.\n"
        "  - [dispatch] backends.a.slots: is missing."
        " Give a whole number from 1 to 1000000, e.g. 16."
    )


def test_one_mistake_is_singular():
    """One mistake is not called mistakes."""
    with pytest.raises(DispatchConfigError, match=r"has 1 mistake:"):
        load({})


def test_file_and_options(tmp_path):
    """The file and the three options exclude each other; mistakes in the file are reported with it."""
    file = tmp_path / "d.yaml"
    file.write_text("backends: {a: {executor: LocalExecutor, slots: 0}}")
    options = {"config_file": str(file), "backends": BACKENDS, "default": "a", "routes": "[]"}
    assert problems(lambda: load(options)) == [
        "[dispatch] config_file: is set, and so are backends, default."
        " Either config_file or these options can be used, not both: remove one or the others.",
        f"{file}: backends.a.slots: found 0. Give a whole number from 1 to 1000000, e.g. 16.",
    ]


def make_missing(path):
    pass


def make_folder(path):
    path.mkdir()


def make_binary(path):
    path.write_bytes(b"\xff\xfe\x00")


def make_loop(path):
    path.symlink_to(path)


UNREADABLE = [
    (make_missing, "cannot be read (No such file or directory)"),
    (make_folder, "is a folder"),
    (os.mkfifo, "is a named pipe"),
    (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    (lambda path: path.write_bytes(b"#" * 1_000_001), "is larger than 1000000 bytes"),
    (make_binary, "cannot be read (not text in UTF-8)"),
    (make_loop, "cannot be read (Too many levels of symbolic links)"),
]


@pytest.mark.parametrize(("make", "reason"), UNREADABLE)
def test_file_that_cannot_be_read(make, reason, tmp_path):
    """A path that gives no text is one mistake, with the system's reason; nothing is called missing."""
    path = tmp_path / "d.yaml"
    make(path)
    assert problems(lambda: load({"config_file": str(path)})) == [
        f"[dispatch] config_file: found {path}, which {reason}."
        " Give the path of a YAML file that the scheduler may read."
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path):
    """A file of somebody else is a mistake like any other."""
    path = tmp_path / "d.yaml"
    path.touch(mode=0)
    assert "Permission denied" in problems(lambda: load({"config_file": str(path)}))[0]


def test_path_with_a_null_character():
    """A path that no system has is a mistake, not a crash."""
    assert "cannot be read" in problems(lambda: load({"config_file": "a\0b"}))[0]


def test_json_file_is_read_as_json(tmp_path):
    """A .json file may be indented with tabs, and its mistakes are JSON's."""
    path = tmp_path / "d.json"
    path.write_text('{\n\t"backends": {"a": {%s, "slots": 1}}\n}' % LOCAL)
    assert load({"config_file": str(path)}).backends["a"].slots == 1
    path.write_text("{")
    assert problems(lambda: load({"config_file": str(path)})) == [
        f"{path}: is not JSON: Expecting property name enclosed in double quotes at line 1, column 2."
        " Write backends, routes and default."
    ]


def test_option_that_cannot_be_read():
    """A command or a secrets backend that fails is a mistake, its output is not shown."""
    broken = RuntimeError(f"command failed: {SECRET}")
    assert problems(lambda: load({"backends": broken, "max_held": broken})) == [
        "[dispatch] backends: cannot be read (RuntimeError)."
        " See whether 'airflow config get-value dispatch backends' works.",
        "[dispatch] max_held: cannot be read (RuntimeError)."
        " See whether 'airflow config get-value dispatch max_held' works.",
    ]


def test_more_than_one_anchor_of_itself(tmp_path):
    """A file whose parts contain one another a great many times is refused at once."""
    path = tmp_path / "d.yaml"
    path.write_text("backends: &x\n" + "".join(f"  k{n}: *x\n" for n in range(50)) + "default: a\n")
    assert "contains itself" in problems(lambda: load({"config_file": str(path)}))[0]


# fmt: off
SECRETS = [
    '{"a": {"executor": "LocalExecutor", "slots": 1, "config": "%s"}}',
    '{"a": {"executor": "LocalExecutor", "slots": 1, "config": {"celery": "%s"}}}',
    '{"a": {"executor": "LocalExecutor", "slots": 1, "config": {"celery": {"broker_url": ["%s"]}}}}',
    '{"a": {"executor": "LocalExecutor", "slots": 0, "config": {"celery": {"broker_url": "%s"}}}}',
    '{"a": {"executor": "LocalExecutor", "slots": 1, "confg": {"celery": {"broker_url": "%s"}}}}',
    '{"a": {"executor": "LocalExecutor", "slots": 1, "broker_url": "%s"}}',
    '{"a": {"executor": "LocalExecutor", "slots": 1, "config": {"celery": {"broker_url": "%s"}}}',
    '{"a": {"executor": "LocalExecutor", "slots": 1, "config": {"celery": {"broker_url": "%s" "x"}}}}',
    '{"a": "redis://:%s@broker/0"}',
    '"redis://:%s@broker/0"',
    '{"a": {"executor": "redis://:%s@broker/0", "slots": "amqp://u:%s@h"}}',
    '{"a": {"executor": "LocalExecutor", "slots": 1, "config": {"core": {"parallelism": "%s"}}}}',
    '{"a": {"executor": "LocalExecutor", "slots": 1, "config": {"x": {"p": "%s"}, "X": {"P": "%s"}}}}',
]
YAML_SECRETS = [
    "backends: {a: {executor: LocalExecutor, slots: 1, config: {celery: {password: *%s}}}}",
    "backends: {a: {executor: LocalExecutor, slots: 1, config: {celery: {password: !%s x}}}}",
    "backends: {a: {executor: LocalExecutor, slots: 1, config: {celery: {password: !%s!y x}}}}",
    "backends: {a: {executor: LocalExecutor, slots: 1, config: {celery: {password: &%s x, b: &%s y}}}}",
    "backends: {a: {executor: LocalExecutor, slots: 1, config: {celery: {password: %%%s}}}}",
    "backends: {a: {executor: LocalExecutor, slots: 1, config: {celery: {password: !!binary %s}}}}",
    'backends: {a: {executor: LocalExecutor, slots: 1, config: {celery: {password: "%s" x}}}}',
]
# fmt: on


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_of_options_are_not_shown(text):
    """No value that may hold a password is in a message, whatever the mistake is."""
    options = {"backends": text.replace("%s", SECRET), "default": "a", "max_held": "0"}
    assert not any(SECRET in line for line in problems(lambda: load(options)))


@pytest.mark.parametrize("text", YAML_SECRETS)
def test_secrets_of_a_file_are_not_shown(text, tmp_path):
    """A password that YAML takes for an anchor, a tag or a directive is not quoted back."""
    path = tmp_path / "d.yaml"
    path.write_text(text.replace("%%", "%").replace("%s", SECRET) + "\nextra: 1\n")
    found = problems(lambda: load({"config_file": str(path)}))
    assert found
    assert not any(SECRET in line for line in found)


def test_secrets_are_in_no_repr():
    """Settings, what they were read from, and the source can be logged."""
    config = '{"a": {%s, "slots": 1, "config": {"celery": {"broker_url": "%s"}}}}' % (LOCAL, SECRET)
    source = SettingsSource(FakeConf({"backends": config}))
    settings = source.load()
    assert settings.backends["a"].config["celery"]["broker_url"] == SECRET
    assert SECRET not in repr(settings) + str(settings) + repr(source) + repr(Raw({"backends": config}))


def test_error_has_no_hidden_context():
    """A traceback of the refusal does not drag in the validation error that quotes the values."""
    with pytest.raises(DispatchConfigError) as refused:
        load({"backends": '{"a": {%s, "slots": 0}}' % LOCAL})
    assert refused.value.__context__ is None
