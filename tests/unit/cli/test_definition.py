# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from airflow_dispatch_provider.cli.definition import get_dispatch_cli_commands
from airflow_dispatch_provider.get_provider_info import get_provider_info
from tests.unit.cli.conftest import Outcome, commands


def test_there_is_one_group() -> None:
    (group,) = get_dispatch_cli_commands()
    assert group.name == "dispatch"
    assert [command.name for command in group.subcommands] == [
        "status",
        "waiting",
        "running",
        "changes",
        "story",
        "cordon",
        "drain",
        "recall",
        "resume",
        "validate",
        "apply",
        "backends",
        "routes",
        "explain",
        "migrate",
    ]


def test_the_metadata_names_the_function() -> None:
    module, _, function = get_provider_info()["cli"][0].rpartition(".")
    assert getattr(sys.modules[module], function) is get_dispatch_cli_commands


@pytest.mark.parametrize("name", list(commands()))
def test_help_says_what_it_does_and_what_the_exit_codes_mean(name: str, run: Callable[..., Outcome]) -> None:
    shown = run(name, "--help")
    assert shown.code == 0
    words = " ".join(shown.out.split())
    judges = "Exit codes: 0 all is well, 1 routes or backends have mistakes"
    said = {
        "status": "Exit codes: 0 all is well, 1 a backend fails",
        **dict.fromkeys(("waiting", "running", "changes"), "Exit codes: 0 it was shown"),
        "story": "Exit codes: 0 it was told",
        **dict.fromkeys(("cordon", "drain", "resume"), "Exit codes: 0 the order is in force"),
        "recall": "Exit codes: 0 the order is given, with --wait done",
        "migrate": "Exit codes: 0 it was printed",
        "apply": "Exit codes: 0 the file is in its place",
        "validate": "Exit codes: 0 all is well (there may be warnings), 1 the configuration has mistakes",
    }
    assert said.get(name, judges) in words
    assert ("--strict" in words) == (name == "validate")
    assert "--output" in words
    assert "--verbose" in words


@pytest.mark.parametrize("name", list(commands()))
def test_help_fits_a_terminal(
    name: str, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's formatter does not wrap what it is given."""
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, map(str.rstrip, run(name, "--help").out.splitlines()))) <= 80


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("explain", {"-e", "--executor"}, "The name that the task gives"),
        ("migrate", {"--executor"}, "Plan for this instead"),
    ],
)
def test_executor_means_another_thing_in_each_command(name: str, flags: set[str], words: str) -> None:
    """Names that a task asks for, or that were configured before."""
    (argument,) = (arg for arg in commands()[name].args if "--executor" in arg.flags)
    assert set(argument.flags) == flags
    assert words in argument.kwargs["help"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("explain", []),
        ("explain", ["--queue", "q", "--map-index", "first"]),
        ("routes", ["--output", "csv"]),
        ("backends", ["--nonsense"]),
        ("routes", ["surplus"]),
        ("migrate", ["--team", "blue"]),
        ("migrate", ["--config"]),
        ("waiting", ["--limit", "-1"]),
        ("running", ["--limit", "0"]),
        ("story", ["d", "r", "t", "--map-index", "2147483648"]),
        ("story", ["d", "r", "t", "--try", "-1"]),
        ("story", ["d", "r", "\udcff"]),
    ],
)
def test_wrong_usage_ends_with_2(name: str, arguments: list[str], run: Callable[..., Outcome]) -> None:
    assert run(name, *arguments).code == 2


def test_the_definition_loads_neither_executors_nor_settings_parser() -> None:
    """Every ``airflow`` command imports it."""
    code = (
        "import sys; import airflow.cli.cli_config; before = set(sys.modules);"
        "import airflow_dispatch_provider.cli.definition;"
        "print([m for m in set(sys.modules) - before if 'dispatch_provider' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert "executors" not in loaded
    assert "settings" not in loaded
    assert "cli.commands" not in loaded


@pytest.mark.parametrize("name", list(commands()))
def test_help_has_no_square_brackets(name: str) -> None:
    """Airflow's help formatter takes them for markup and drops them."""
    command = commands()[name]
    texts = [command.help, command.description, *(arg.kwargs.get("help", "") for arg in command.args)]
    assert [text for text in texts if "[" in text] == []
