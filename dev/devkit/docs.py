# SPDX-License-Identifier: Apache-2.0
"""Write the parts of the documentation that are made from the code, or check that they are up to date."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from devkit.arguments import parser_of
from devkit.environment import DEFAULT_AIRFLOW_VERSION, REPO, enter, say

DOCS = REPO / "docs"
SCHEMA = REPO / "airflow_dispatch_provider" / "settings" / "dispatch.schema.json"
"""Goes into the wheel."""

_HEAD = """# Configuration

<!-- Made by ./dev/docs from settings/options.py and settings/model.py; edit those. -->

Every option can stand in `airflow.cfg` under `[dispatch]`, or in an environment variable
`AIRFLOW__DISPATCH__<OPTION>`. `backends` can also come from a command (`backends_cmd`) or a secrets backend
(`backends_secret`), as sensitive options can everywhere in Airflow. `airflow dispatch validate` checks all of it
and names every mistake that can be seen so far: one may hide others.
"""

_FILE = """## The routing file

`config_file` names a YAML or JSON file with the keys `backends`, `routes` and `default`. The options of the
same names take the same values, as JSON. [dispatch.schema.json](dispatch.schema.json) is the JSON Schema of
the file; editors that know the YAML language server use it where the file starts with
`# yaml-language-server: $schema=<path or URL of dispatch.schema.json>`.
"""

_COMMANDS = """# Commands

<!-- Made by ./dev/docs from cli/definition.py; edit that. -->

`airflow dispatch <command> --help` prints the same. On Airflow 3.1 the commands are there once `[core] executor` names
the `DispatchExecutor`; on later versions as soon as the package is installed.
"""

_REASONS_BEGIN = "<!-- reasons: made by ./dev/docs from routing/reasons.py -->\n"
_REASONS_END = "<!-- end of reasons -->\n"

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")

_PARTS = {
    "RoutingFile": "The file as a whole",
    "BackendSettings": "A backend",
    "Route": "A route",
    "Target": "A target",
}


def main() -> int:
    options = _parse()
    enter(DEFAULT_AIRFLOW_VERSION)
    wanted = dict(_generated())
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if options.check:
        for path in stale:
            say(f"{path.relative_to(REPO)} is not up to date. Run ./dev/docs and commit what it writes.")
        if stale:
            return 1
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
        say(f"wrote {path.relative_to(REPO)}")
    return build_site() if options.build else 0


def _parse() -> argparse.Namespace:
    parser = parser_of("./dev/docs", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is stale")
    parser.add_argument(
        "--build", action="store_true", help="then build the pages into build/docs with mkdocs"
    )
    return parser.parse_args()


def build_site(checkout: Path = REPO, *options: str) -> int:
    """Returns the exit code of mkdocs, which is not 0 for a dead link. Its --quiet would make --strict do nothing."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", *options]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=checkout, env=environment, check=False).returncode


def _generated() -> Iterator[tuple[Path, str]]:
    from airflow_dispatch_provider.settings.parse import json_schema

    schema = json_schema()
    yield DOCS / "configuration.md", _reference(schema)
    for path in (SCHEMA, DOCS / SCHEMA.name):
        yield path, json.dumps({"$id": _schema_id(), **schema}, indent=2) + "\n"
    yield DOCS / "reference" / "commands.md", _commands()
    reasons = DOCS / "reference" / "reasons.md"
    yield reasons, _with_reasons(reasons.read_text())


def _schema_id() -> str:
    """Where the schema is once the project is published at its address."""
    urls = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["urls"]
    return f"{urls['Homepage']}/raw/main/{SCHEMA.relative_to(REPO).as_posix()}"


def _with_reasons(page: str) -> str:
    from airflow_dispatch_provider.routing.reasons import Reason

    before, _, rest = page.partition(_REASONS_BEGIN)
    _, _, after = rest.partition(_REASONS_END)
    rows = "".join(f"| `{reason.value}` | {reason.words} |\n" for reason in Reason)
    table = f"| reason | meaning |\n|---|---|\n{rows}"
    return f"{before}{_REASONS_BEGIN}\n{table}\n{_REASONS_END}{after}"


def _commands() -> str:
    from airflow_dispatch_provider.cli.definition import DISPATCH_COMMANDS

    return "\n".join([_COMMANDS, *map(_command, DISPATCH_COMMANDS)])


def _command(command: Any) -> str:
    rows = "".join(f"| {_flags(arg)} | {_help(arg)} |\n" for arg in command.args)
    about = _paragraph(command.description)
    return f"## `airflow dispatch {command.name}`\n\n{about}\n\n| option | meaning |\n|---|---|\n{rows}"


def _flags(arg: Any) -> str:
    """E.g. `-q`, `--queue QUEUE`."""
    *short, name = arg.flags
    word = name.lstrip("-").upper().replace("-", "_")
    if not name.startswith("-"):
        return f"`{word}`"
    metavar = str(arg.kwargs.get("metavar") or word)
    value = "" if arg.kwargs.get("action") else f" {word if metavar.startswith('(') else metavar}"
    return ", ".join(f"`{flag}`" for flag in [*short, name + value])


def _help(arg: Any) -> str:
    help_ = " ".join(_markdown(str(arg.kwargs.get("help", ""))).split()).replace("|", "\\|")
    return f"{help_} (required)" if arg.kwargs.get("required") else help_


def _reference(schema: Mapping[str, Any]) -> str:
    from pydantic import TypeAdapter

    from airflow_dispatch_provider.settings.model import EngineOptions, Limits
    from airflow_dispatch_provider.settings.options import OPTIONS

    fields: dict[str, Any] = {}
    for model in (Limits, EngineOptions):
        fields |= TypeAdapter(model).json_schema()["properties"]
    options = "\n".join(_option(name, option, fields.get(name, {})) for name, option in OPTIONS.items())
    objects = {"RoutingFile": schema, **schema["$defs"]}
    parts = "\n".join(_object(title, objects[name]) for name, title in _PARTS.items())
    return f"{_HEAD}\n## `[dispatch]`\n\n{options}\n{_FILE}\n{parts}"


def _option(name: str, option: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    facts = [f"Type: {option['type']}{_bounds(field)}"]
    facts.append(
        "no default" if option["default"] is None else f"default: `{option['default'] or '(empty)'}`"
    )
    facts.append(f"since {option['version_added']}")
    if option.get("sensitive"):
        facts.append("masked where Airflow masks sensitive options")
    example = f"\n```ini\n{name} = {option['example']}\n```\n" if option["example"] else ""
    return f"### `{name}`\n\n{_paragraph(option['description'])}\n\n{'; '.join(facts)}.\n{example}"


def _object(title: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"| `{name}` | {_type(field)} | {_default(name, field, required)} | {_cell(field)} |\n"
        for name, field in schema["properties"].items()
    )
    return f"### {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n{rows}"


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2].removesuffix("Settings").lower()
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        kinds = [_type(choice) for choice in field["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if field["type"] == "object":
        values = field.get("additionalProperties")
        return f"object of {_type(values)}" if isinstance(values, dict) else "object"
    return {"integer": "whole number", "string": "text"}.get(field["type"], str(field["type"])) + _bounds(
        field
    )


def _bounds(field: Mapping[str, Any]) -> str:
    """The numbers that are allowed, after the name of their type."""
    if "exclusiveMinimum" in field:
        return f" above {field['exclusiveMinimum']}"
    if "maximum" in field:
        return f" from {field['minimum']} to {field['maximum']}"
    return f" from {field['minimum']} on" if "minimum" in field else ""


def _default(name: str, field: Mapping[str, Any], required: list[str]) -> str:
    if name in required:
        return "(required)"
    default = field.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


def _cell(field: Mapping[str, Any]) -> str:
    return _markdown(field.get("description", "")).replace("\n", " ").replace("|", "\\|")


def _markdown(text: str) -> str:
    """Options such as --dag-id as code, so that no browser breaks them after a hyphen."""
    prose_and_code = text.strip().replace("``", "`").split("`")
    prose_and_code[::2] = (_OPTION.sub(r"`\g<0>`", prose) for prose in prose_and_code[::2])
    return "`".join(prose_and_code)


def _paragraph(text: str) -> str:
    return textwrap.fill(_markdown(text), 118, break_long_words=False, break_on_hyphens=False)
