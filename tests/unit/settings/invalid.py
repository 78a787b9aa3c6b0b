# SPDX-License-Identifier: Apache-2.0
"""Configurations that are wrong; ``invalid_problems.txt`` has what each is answered with."""

# ruff: noqa: UP031 - JSON is full of braces, which str.format would want doubled.
from __future__ import annotations

BACKENDS = '{"a": {"executor": "LocalExecutor", "slots": 4}, "b": {"executor": "CeleryExecutor", "slots": 8}}'


def backend(text, **more):
    return {"backends": '{"a": %s}' % text, **more}


LOCAL = '"executor": "LocalExecutor"'


def routes(text):
    return {"backends": BACKENDS, "routes": text, "default": "a"}


def default(text):
    return {"backends": BACKENDS, "default": text}


INLINE = {
    # backends
    "nothing set": {},
    "backends empty text": {"backends": "  "},
    "backends not JSON": {"backends": "{'a': 1}", "default": "a"},
    "backends cut off": {"backends": '{"a": {', "default": "a"},
    "backends a list": {"backends": '["a"]', "default": "a"},
    "backends a number": {"backends": "7", "default": "a"},
    "backends text": {"backends": '"LocalExecutor"', "default": "a"},
    "backends null": {"backends": "null", "default": "a"},
    "backends an empty object": {"backends": "{}", "default": "a"},
    "backend is text": {"backends": '{"a": "LocalExecutor"}'},
    "backend is null": {"backends": '{"a": null}'},
    "backend is an empty object": backend("{}"),
    "duplicate backend": {"backends": '{"a": {%s, "slots": 1}, "a": {%s, "slots": 2}}' % (LOCAL, LOCAL)},
    "duplicate key in a backend": backend('{%s, "slots": 1, "slots": 2}' % LOCAL),
    "backend name with a dot": {"backends": '{"a.b": {%s, "slots": 1}}' % LOCAL},
    "backend name empty": {"backends": '{"": {%s, "slots": 1}}' % LOCAL},
    "backend name too long": {"backends": '{"%s": {%s, "slots": 1}}' % ("x" * 61, LOCAL)},
    "executor missing": backend('{"slots": 1}'),
    "executor empty": backend('{"executor": "", "slots": 1}'),
    "executor a number": backend('{"executor": 1, "slots": 1}'),
    "executor misspelt": backend('{"executor": "CeleryExecuter", "slots": 1}'),
    "executor unheard of": backend('{"executor": "Zoo", "slots": 1}'),
    "executor no import path": backend('{"executor": "my..Executor", "slots": 1}'),
    "executor with an alias": backend('{"executor": "x:my.Executor", "slots": 1}'),
    "executor the router": backend(
        '{"executor": "airflow_dispatch_provider.executors.dispatch_executor.DispatchExecutor", "slots": 1}'
    ),
    "executor a name of the router": backend(
        '{"executor": "airflow_dispatch_provider.executors.by_name.LocalExecutor", "slots": 1}'
    ),
    "executor the router's name": backend('{"executor": "DispatchExecutor", "slots": 1}'),
    "slots missing": backend("{%s}" % LOCAL),
    "slots zero": backend('{%s, "slots": 0}' % LOCAL),
    "slots negative": backend('{%s, "slots": -1}' % LOCAL),
    "slots in quotes": backend('{%s, "slots": "8"}' % LOCAL),
    "slots a fraction": backend('{%s, "slots": 8.0}' % LOCAL),
    "slots true": backend('{%s, "slots": true}' % LOCAL),
    "slots null": backend('{%s, "slots": null}' % LOCAL),
    "slots NaN": backend('{%s, "slots": NaN}' % LOCAL),
    "slots Infinity": backend('{%s, "slots": Infinity}' % LOCAL),
    "slots another word": backend('{%s, "slots": "worker"}' % LOCAL),
    "fallback slots negative": backend('{%s, "slots": "workers", "fallback_slots": -1}' % LOCAL),
    "slots above a million": backend('{%s, "slots": 1000001}' % LOCAL),
    "slots of 400 digits": backend('{%s, "slots": %s}' % (LOCAL, "9" * 400)),
    "slots of 5000 digits": backend('{%s, "slots": %s}' % (LOCAL, "9" * 5000)),
    "cordoned text": backend('{%s, "slots": 1, "cordoned": "yes"}' % LOCAL),
    "key misspelt": backend('{%s, "slot": 1}' % LOCAL),
    "key unheard of": backend('{%s, "slots": 1, "zzz": 1}' % LOCAL),
    "config a list": backend('{%s, "slots": 1, "config": []}' % LOCAL),
    "config section is text": backend('{%s, "slots": 1, "config": {"celery": "x"}}' % LOCAL),
    "config option null": backend('{%s, "slots": 1, "config": {"celery": {"x": null}}}' % LOCAL),
    "config option an object": backend('{%s, "slots": 1, "config": {"celery": {"x": {"str": 1}}}}' % LOCAL),
    "config option twice": backend(
        '{%s, "slots": 1, "config": {"celery": {"x": 1}, "Celery": {"X": 2}}}' % LOCAL
    ),
    "config nested too deeply": backend('{%s, "slots": 1, "config": %s}' % (LOCAL, "[" * 30 + "]" * 30)),
    "brackets without end": {"backends": "[" * 100000, "default": "a"},
    # routes
    "routes not JSON": routes("gpu"),
    "routes an object": routes('{"gpu": "a"}'),
    "routes null": routes("null"),
    "route is text": routes('["gpu"]'),
    "route is empty": routes("[{}]"),
    "queue missing": routes('[{"to": ["a"]}]'),
    "queue a number": routes('[{"queue": 1, "to": ["a"]}]'),
    "queue empty": routes('[{"queue": "", "to": ["a"]}]'),
    "queue a list": routes('[{"queue": ["x", "y"], "to": ["a"]}]'),
    "queue half a character": routes('[{"queue": "x\\ud800", "to": ["a"]}]'),
    "to missing": routes('[{"queue": "x"}]'),
    "to is text": routes('[{"queue": "x", "to": "a"}]'),
    "to an empty list": routes('[{"queue": "x", "to": []}]'),
    "to has a number": routes('[{"queue": "x", "to": ["a", 2]}]'),
    "to has null": routes('[{"queue": "x", "to": [null]}]'),
    "to has an empty name": routes('[{"queue": "x", "to": [""]}]'),
    "target without backend": routes('[{"queue": "x", "to": [{"queue": "y"}]}]'),
    "target key misspelt": routes('[{"queue": "x", "to": [{"backend": "a", "que": "y"}]}]'),
    "target queue a number": routes('[{"queue": "x", "to": [{"backend": "a", "queue": 5}]}]'),
    "target queue a pattern": routes('[{"queue": "x-*", "to": [{"backend": "a", "queue": "y-*"}]}]'),
    "target twice": routes('[{"queue": "x", "to": ["a", {"backend": "a"}]}]'),
    "target twice, other weights": routes(
        '[{"queue": "x", "to": [{"backend": "a", "weight": 1}, {"backend": "a", "weight": 2}]}]'
    ),
    "unknown backend, close": {
        "backends": '{"celery": {%s, "slots": 1}}' % LOCAL,
        "routes": '[{"queue": "x", "to": ["celry"]}]',
    },
    "unknown backend": routes('[{"queue": "x", "to": ["zoo"]}]'),
    "weight negative": routes('[{"queue": "x", "to": [{"backend": "a", "weight": -1}]}]'),
    "weight a fraction": routes('[{"queue": "x", "to": [{"backend": "a", "weight": 0.5}]}]'),
    "weight too large": routes('[{"queue": "x", "to": [{"backend": "a", "weight": 1000001}]}]'),
    "weights for some": routes('[{"queue": "x", "to": [{"backend": "a", "weight": 1}, "b"]}]'),
    "weights all zero": routes(
        '[{"queue": "x", "to": [{"backend": "a", "weight": 0}, {"backend": "b", "weight": 0}]}]'
    ),
    "overflow_after text": routes('[{"queue": "x", "to": ["a", "b"], "overflow_after": "soon"}]'),
    "overflow_after negative": routes('[{"queue": "x", "to": ["a", "b"], "overflow_after": -1}]'),
    "overflow_after true": routes('[{"queue": "x", "to": ["a", "b"], "overflow_after": true}]'),
    "overflow_after Infinity": routes('[{"queue": "x", "to": ["a", "b"], "overflow_after": Infinity}]'),
    "overflow_after an object": routes('[{"queue": "x", "to": ["a", "b"], "overflow_after": {"float": 1}}]'),
    "overflow_after, one target": routes('[{"queue": "x", "to": ["a"], "overflow_after": 5}]'),
    "dag_id a number": routes('[{"queue": "x", "to": ["a"], "dag_id": 1}]'),
    "dag_id empty": routes('[{"queue": "x", "to": ["a"], "dag_id": ""}]'),
    "route key misspelt": routes('[{"queue": "x", "to": ["a"], "overflow_afer": 1}]'),
    "route twice": routes(
        '[{"queue": "x", "to": ["a"]}, {"queue": "y", "to": ["a"]}, {"queue": "x", "to": ["b"]}]'
    ),
    "glob after the star": routes('[{"queue": "*", "to": ["a"]}, {"queue": "x-*", "to": ["b"]}]'),
    "glob after the star, same Dag": routes(
        '[{"queue": "*", "dag_id": "d", "to": ["a"]}, {"queue": "x-*", "dag_id": "d", "to": ["b"]}]'
    ),
    # default
    "default missing": {"backends": BACKENDS},
    "default unknown": default("c"),
    "default not JSON": default('{"backend": a}'),
    "default an empty list": default("[]"),
    "default an empty object": default("{}"),
    "default list with a number": default('["a", 5]'),
    "default backend a number": default('{"backend": 5}'),
    "default key misspelt": default('{"backend": "a", "qeue": "x"}'),
    "default queue a number": default('{"backend": "a", "queue": 1}'),
    "default weights for some": default('[{"backend": "a", "weight": 1}, "b"]'),
    "default list with an unknown": default('["a", "zoo"]'),
    # limits and names of options
    "max_held zero": {**default("a"), "max_held": "0"},
    "max_held text": {**default("a"), "max_held": "many"},
    "max_held a fraction": {**default("a"), "max_held": "1.5"},
    "retry_min_delay zero": {**default("a"), "retry_min_delay": "0"},
    "retry_min_delay nan": {**default("a"), "retry_min_delay": "nan"},
    "retry_max_delay inf": {**default("a"), "retry_max_delay": "inf"},
    "retry_max_delay text": {**default("a"), "retry_max_delay": "1 minute"},
    "retry delays crossed": {**default("a"), "retry_min_delay": "90"},
    "option misspelt": {**default("a"), "rutes": "[]"},
    "option has no command": {**default("a"), "routes_cmd": "cat routes"},
    "many mistakes": {
        "backends": '{"a": {"executor": "Local", "slots": 0}, "b c": {}, "d": {%s, "slots": 1}}' % LOCAL,
        "routes": '[{"queue": "", "to": ["zoo"]}, {"queue": "x", "to": ["d", "zoo"]}, 3]',
        "default": "e",
        "max_held": "x",
        "defalt": "a",
    },
    "everything unreadable": {"backends": "{", "routes": "[", "default": "[", "max_held": "{"},
}
YAML_BACKENDS = (
    "backends:\n  a: {executor: LocalExecutor, slots: 4}\n  b: {executor: CeleryExecutor, slots: 8}\n"
)
FILES = {
    "file empty": "",
    "file only comments": "# nothing\n",
    "file a list": "- a\n",
    "file text": "hello",
    "file broken": "backends: {a: [}\n",
    "file with a tab": "backends:\n\ta: 1\n",
    "file with a control character": "backends: \x01\n",
    "file of two documents": "a: 1\n---\nb: 2\n",
    "file python tag": "backends: !!python/object/apply:os.system ['id']\n",
    "file own tag": "backends: !vault abc\n",
    "file unknown anchor": "backends: *nowhere\n",
    "file contains itself": "backends: &x\n  a: *x\ndefault: a\n",
    "file duplicate key": YAML_BACKENDS + "default: a\ndefault: b\n",
    "file duplicate nested key": "backends:\n" + "  a: {executor: LocalExecutor, slots: 4}\n" * 2,
    "file number as name": "backends:\n  1: {executor: LocalExecutor, slots: 4}\n",
    "file yes as name": "backends:\n  yes: {executor: LocalExecutor, slots: 4}\n",
    "file list as name": "backends:\n  ? [a, b]\n  : {executor: LocalExecutor, slots: 4}\n",
    "file date as queue": YAML_BACKENDS + "default: a\nroutes: [{queue: 2026-01-31, to: [a]}]\n",
    "file impossible date": YAML_BACKENDS + "default: a\nroutes: [{queue: 2026-13-45, to: [a]}]\n",
    "file date as key": YAML_BACKENDS + "default: a\nroutes: [{queue: x, to: [a], 2026-01-31: 1}]\n",
    "file binary value": YAML_BACKENDS + "default: !!binary aGVsbG8=\n",
    "file set value": YAML_BACKENDS + "default: !!set {a}\n",
    "file number as queue": YAML_BACKENDS + "default: a\nroutes: [{queue: 007, to: [a]}]\n",
    "file exponent": YAML_BACKENDS + "default: a\nroutes: [{queue: x, to: [a, b], overflow_after: 1e9}]\n",
    "file slots with an exponent": "backends: {a: {executor: LocalExecutor, slots: 1e3}}\n",
    "file fraction in quotes": YAML_BACKENDS
    + "default: a\nroutes: [{queue: x, to: [a, b], overflow_after: '1.5'}]\n",
    "file nan": YAML_BACKENDS + "default: a\nroutes: [{queue: x, to: [a, b], overflow_after: .nan}]\n",
    "file hex of 6000 digits": YAML_BACKENDS
    + "default: a\nroutes: [{queue: x, to: [a, b], overflow_after: 0x"
    + "f" * 6000
    + "}]\n",
    "file unknown key": YAML_BACKENDS + "default: a\nroute: []\n",
    "file limit in it": YAML_BACKENDS + "default: a\nmax_held: 5\n",
    "file key a number": YAML_BACKENDS + "default: a\n5: x\n",
    "file routes empty": YAML_BACKENDS + "default: a\nroutes:\n",
    "file many mistakes": "backends:\n  a: {executor: 5, slots: x}\n"
    "routes:\n- {queue: x, to: a}\n- 7\ndefault: {bckend: a}\nextra: 1\n",
}
