# SPDX-License-Identifier: Apache-2.0
"""Mistakes in the routing file."""

from __future__ import annotations

from .harness import LOCAL, Case, airflow_cfg, case

FILE = f"backends:\n  a: {LOCAL}\n  b: {LOCAL}\n"


def file(name: str, wrong: str, where: str, found: str, mended: str = "$1", remedy: str = "") -> Case:
    """Mistakes in the routing file."""
    cfg = airflow_cfg(backends="", routes=None, default=None, more="config_file = {home}/d.yaml")
    return case(
        name, wrong, f"{{home}}/d.yaml{where}", found, mended, remedy, cfg=cfg, files={"d.yaml": "<>"}
    )


CASES = [
    *(
        file(
            f"file {wrong}",
            f"{FILE}default: a\nroutes: [{{queue: {wrong}, to: [b]}}]",
            "",
            "is not YAML that can be read",
            f"{FILE}default: a\nroutes: [{{queue: 'x', to: [b]}}]",
            "Put text in quotes",
        )
        for wrong in ("!!bool x", "!!timestamp foo", "!!int x", "!!float x", '!!int ""')
    ),
    file(
        "file queue of blanks",
        f"{FILE}default: a\nroutes: [{{queue: ' ', to: [b]}}]",
        ": routes[0].queue",
        "nothing but blanks",
        f"{FILE}default: a\nroutes: [{{queue: '$1', to: [b]}}]",
    ),
    file(
        "file under dispatch",
        "dispatch: {default: a}",
        "",
        'has "dispatch" at the top',
        f"backends: {{a: {LOCAL}}}",
        "Write backends",
    ),
    file(
        "file that is a manifest",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {d.yaml: x}",
        "",
        "and none of backends, routes and default",
        FILE + "default: a\nroutes: [{queue: q, to: [b]}]",
        "Write backends",
    ),
    file(
        "file backends misspelt",
        f"backend: {{a: {LOCAL}}}",
        ": backend",
        "not a known key",
        f"$1: {{a: {LOCAL}}}",
    ),
    file(
        "file default misspelt",
        f"{FILE}default: c\nroutes: [{{queue: q, to: [b]}}]\n",
        ": default",
        "not configured",
        f"{FILE}default: a\nroutes: [{{queue: q, to: [b]}}]\n",
        "Known: 'a', 'b'.",
    ),
    file(
        "file queue a number",
        f"{FILE}default: a\nroutes: [{{queue: 7, to: [b]}}]\n",
        ": routes[0].queue",
        "found 7",
        f'{FILE}default: a\nroutes: [{{queue: "7", to: [b]}}]\n',
        "in quotes",
    ),
    file(
        "file key misspelt",
        f"{FILE}default: a\nroute: [{{queue: q, to: [b]}}]\n",
        ": route",
        "is not a known key",
        f"{FILE}default: a\n$1: [{{queue: q, to: [b]}}]\n",
    ),
    file(
        "file key twice",
        f"{FILE}default: a\ndefault: b\nroutes: [{{queue: q, to: [b]}}]\n",
        "",
        'has the key "default" twice',
        f"{FILE}default: a\nroutes: [{{queue: q, to: [b]}}]\n",
        "Remove one of the two.",
    ),
    file(
        "file pattern with a bracket open",
        f"{FILE}default: a\nroutes: [{{queue: 'g[', to: [b]}}]\n",
        ": routes[0].queue",
        "not closed",
        f"{FILE}default: a\nroutes: [{{queue: 'g[[]', to: [b]}}]\n",
        '"g[[]"',
    ),
    file(
        "file that holds anchors beside its keys",
        f"x-one: &one {LOCAL}\nx-two: 2\n.three: 3\n.four: 4\nx-five: 5\nbackends: {{a: *one, b: *one}}\n"
        "default: [a, b]\n",
        "",
        'has "x-one", "x-two", ".three" and 2 more beside backends',
        f"backends: {{a: &one {LOCAL}, b: *one}}\ndefault: [a, b]\n",
        "where its value is first used",
    ),
    file(
        "file with an octal number",
        "backends: {a: {executor: LocalExecutor, slots: 010}}\n",
        "",
        "YAML takes 010 for 8",
        "backends: {a: {executor: LocalExecutor, slots: 10}}\n",
        "no 0 before them",
    ),
    file(
        "file with a number of base 60",
        f"backends: {{a: {LOCAL}, b: {LOCAL}}}\nroutes: [{{queue: q, to: [a, b], overflow_after: 1:30}}]\ndefault: a\n",
        "",
        "YAML takes 1:30 for 90",
        f"backends: {{a: {LOCAL}, b: {LOCAL}}}\nroutes: [{{queue: q, to: [a, b], overflow_after: 90}}]\ndefault: a\n",
        "decimal digits alone",
    ),
    file(
        "file with a backend called no",
        f"backends: {{no: {LOCAL}}}\n",
        "",
        'has the key "no" at line 1, which YAML takes for true or false',
        f"backends: {{'no': {LOCAL}}}\n",
        "Put it in quotes",
    ),
    file(
        "file with a queue called no",
        f"backends: {{a: {LOCAL}, b: {LOCAL}}}\nroutes: [{{queue: no, to: [b]}}]\ndefault: a\n",
        ": routes[0].queue",
        "found false",
        f"backends: {{a: {LOCAL}, b: {LOCAL}}}\nroutes: [{{queue: 'no', to: [b]}}]\ndefault: a\n",
        "in quotes",
    ),
    file(
        "file with too many values",
        f"backends: {{a: {LOCAL}}}\nroutes: [{', '.join(f'{{queue: q{n}, to: [a]}}' for n in range(8000))}]\n",
        "",
        "has more than 30000 values",
        f"backends: {{a: {LOCAL}}}\nroutes: [{{queue: q, to: [a]}}]\n",
        "Write out what the routes and backends need",
    ),
    file(
        "file empty",
        "",
        "",
        "has nothing in it",
        f"{FILE}default: a\nroutes: [{{queue: q, to: [b]}}]\n",
        "Write backends, routes and default.",
    ),
    file(
        "file with a tag",
        "backends: !!python/object/apply:os.system ['id']\n",
        "",
        "is not YAML",
        f"backends: {{a: {LOCAL}}}\n",
        "Correct it there.",
    ),
    file(
        "file that contains itself",
        "backends: &x {a: *x}\ndefault: a\n",
        ": backends",
        "contains itself",
        f"backends: {{a: {LOCAL}}}\n",
        "Give an object of backends",
    ),
]
