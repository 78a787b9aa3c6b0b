# SPDX-License-Identifier: Apache-2.0
"""./dev/chaos: what fails, in which order, and how the configuration is changed."""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random
from unittest.mock import MagicMock

import pytest

from devkit.bench import chaos
from devkit.deployments.everything import SLOTS, Routing


def test_each_kind_fails_before_any_fails_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an order that the seed gives."""
    faults = tuple(partial(lambda kind, *_: (kind, print), kind) for kind in range(4))
    monkeypatch.setattr(chaos, "FAULTS", faults)
    found = [chaos.plan(MagicMock(), 100, 6, Random(seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert sorted(Counter(kind for _, (kind, _) in found[0]).values()) == [1, 1, 2, 2]


@pytest.mark.parametrize("fault", chaos.FAULTS)
def test_a_fault_says_what_it_hits(fault: chaos.Fault) -> None:
    """And is not carried out yet."""
    deployment = MagicMock()
    words, action = fault(deployment, Random(1))
    assert words
    assert not [call for call in deployment.mock_calls if "()" in call[0]]
    action()
    assert [call for call in deployment.method_calls if call[0] in dir(chaos.Everything)]


@pytest.mark.parametrize("name", SLOTS)
@pytest.mark.parametrize("change", chaos.CHANGES.values(), ids=list(chaos.CHANGES))
def test_a_changed_configuration_is_one(change: chaos.Callable[[str, Routing], None], name: str) -> None:
    """It differs, and every backend that it names is there."""
    routing: Routing = {
        "backends": {each: {"slots": slots} for each, slots in SLOTS.items()},
        "routes": [{"queue": each, "to": [each]} for each in SLOTS],
        "default": "local",
    }
    before = repr(routing)
    change(name, routing)
    assert repr(routing) != before
    named = {target for route in routing["routes"] for target in route["to"]} | {routing["default"]}
    assert named <= set(routing["backends"])
