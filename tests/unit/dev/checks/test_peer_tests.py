# SPDX-License-Identifier: Apache-2.0
"""How ./dev/peer-tests judges the outcomes of Airflow's tests, and reads the list of those that cannot pass."""

from __future__ import annotations

from collections import Counter

import pytest

from devkit.checks.peer_plugin import is_at_least
from devkit.checks.peer_tests import (
    AIRFLOW,
    EMPTY,
    LISTED,
    PROVIDERS,
    Listed,
    Outcome,
    Result,
    judge,
    lines,
    locked_version,
    read_listed,
    read_outcomes,
    telling,
)
from devkit.environment import AIRFLOW_VERSIONS, DEFAULT_AIRFLOW_VERSION, DevError, lock_file

pytestmark = pytest.mark.once

PASSED, FAILED, SKIPPED = (
    Outcome("passed", ""),
    Outcome("failed", "assert 1 == 2\nmore"),
    Outcome("skipped", ""),
)


def test_a_failure_is_expected_where_the_test_or_one_of_its_cases_is_listed():
    listed = Listed({"T::test_all": "internals", "test_one[a]": "contract"})
    outcomes = {"T::test_all[x]": FAILED, "test_one[a]": FAILED, "test_one[b]": PASSED}
    verdict = judge(outcomes, listed)
    assert verdict.ok
    assert verdict.reasons == Counter(internals=1, contract=1)


def test_a_failure_that_is_not_listed_is_wrong():
    verdict = judge({"test_one[a]": FAILED, "test_two": PASSED}, Listed({"test_one[b]": "internals"}))
    assert not verdict.ok
    assert verdict.failures == ["test_one[a]"]


def test_a_listed_test_that_passes_is_wrong():
    verdict = judge({"test_one": PASSED, "test_two": PASSED}, Listed({"test_one": "internals"}))
    assert not verdict.ok
    assert verdict.wrongly_listed == ["test_one"]


def test_a_listed_test_may_be_skipped_or_not_be_there():
    listed = Listed({"test_one": "internals", "test_of_another_version": "internals"})
    verdict = judge({"test_one": SKIPPED, "test_two": PASSED}, listed)
    assert verdict.ok
    assert verdict.skipped == 1


def test_it_is_no_success_that_nothing_passed():
    assert not judge({}, Listed({})).ok
    assert not judge({"test_one": FAILED}, Listed({"test_one": "internals"})).ok


def test_a_test_says_something_of_ours_if_it_fails_with_an_empty_class():
    assert telling(["a", "b", "c"], {"a": PASSED, "b": FAILED}) == 2


def test_outcomes_go_by_the_name_within_the_file():
    written = {"tests/unit/test_x.py::T::test_one[a::b]": ("failed", "boom")}
    assert read_outcomes(written) == {"T::test_one[a::b]": Outcome("failed", "boom")}


def test_two_files_with_a_test_of_the_same_name_are_not_mixed_up():
    with pytest.raises(DevError, match="test_one"):
        read_outcomes({"a.py::test_one": ("passed", ""), "b.py::test_one": ("failed", "")})


@pytest.mark.parametrize(
    "text",
    [
        '[reasons.r]\nwhy = "x"\n[celery]\nr = ["a", "a"]',
        '[reasons.r]\nwhy = "x"\n[celery]\ns = ["a"]',
    ],
)
def test_a_list_that_says_a_thing_twice_or_gives_no_reason_is_refused(text: str):
    with pytest.raises(DevError, match="celery"):
        read_listed(text, "3.3.2")


@pytest.mark.parametrize(("version", "listed"), [("3.1.8", []), ("3.2.2", ["a"]), ("3.10.0b1", ["a"])])
def test_a_reason_may_hold_from_an_airflow_version_on(version: str, listed: list[str]):
    text = '[reasons.r]\nwhy = "x"\nsince = "3.2"\n[celery]\nr = ["a"]'
    meanings, by_provider = read_listed(text, version)
    assert meanings == {"r": "x"}
    assert list(by_provider["celery"].reasons) == listed


def test_the_list_has_a_use_for_each_reason_and_each_provider():
    meanings, listed = read_listed(LISTED.read_text(), DEFAULT_AIRFLOW_VERSION)
    assert listed.keys() == PROVIDERS.keys()
    assert {reason for each in listed.values() for reason in each.reasons.values()} == meanings.keys()


@pytest.mark.parametrize("airflow_version", AIRFLOW_VERSIONS)
def test_each_lock_file_has_the_providers(airflow_version: str):
    lock = lock_file(airflow_version).read_text()
    for provider in PROVIDERS.values():
        assert locked_version(lock, provider.distribution)[0].isdigit()


def test_a_provider_that_is_not_locked_is_an_error():
    with pytest.raises(DevError, match="apache-airflow-providers-celery"):
        locked_version("celery==5.6.0\n", "apache-airflow-providers-celery")


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("AIRFLOW_V_3_2_PLUS", "3.2.0", True),
        ("AIRFLOW_V_3_2_PLUS", "3.1.8", False),
        ("AIRFLOW_V_3_1_9_PLUS", "3.1.8", False),
        ("AIRFLOW_V_3_4_PLUS", "3.4.0b2", True),
    ],
)
def test_constants_of_airflow_versions(name: str, version: str, expected: bool):
    assert is_at_least(name, version) is expected


def test_a_name_that_is_no_such_constant_is_missing():
    with pytest.raises(AttributeError):
        is_at_least("__path__", "3.2.0")


def test_the_table_names_what_is_wrong():
    outcomes = {"test_one": PASSED, "test_two": FAILED, "test_three": FAILED, "test_four": PASSED}
    listed = Listed({"test_three": "internals", "test_four": "internals"})
    controls = {AIRFLOW: {"test_two": FAILED}, EMPTY: {"test_one": PASSED}}
    result = Result(PROVIDERS["celery"], "3.26.0", outcomes, judge(outcomes, listed), controls)
    text = lines([result], {"internals": "needs what is not there"})
    words = [line.split() for line in text]
    assert ["celery", "3.26.0", "4", "2", "0", "1", "2"] in words
    assert ["celery", "1", "1", "1"] in words
    assert "     1  celery    internals  needs what is not there" in text
    assert "FAILED   celery: test_two: assert 1 == 2" in text
    assert "PASSED   celery: test_four: take it off dev/peer_tests.toml" in text
