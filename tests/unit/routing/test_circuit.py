# SPDX-License-Identifier: Apache-2.0
"""When a backend that failed is tried again."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dispatch_provider.routing.circuit import Circuit, CircuitState, growing_delay


def fail_times(count, jitter=1.0, **limits):
    """A circuit that failed at every retry, and the delays that it had."""
    circuit, now, delays = Circuit(**limits), 0.0, []
    for _ in range(count):
        circuit = circuit.failed(now, "boom", jitter)
        delays.append(circuit.retry_at - now)
        now = circuit.retry_at
    return circuit, now, delays


def test_closed_at_first():
    """A new circuit is closed and has no error."""
    circuit = Circuit()
    assert (circuit.state(0), circuit.error, circuit.failures) == (CircuitState.CLOSED, None, 0)


def test_states_over_time():
    """A failure opens it; when the delay is over it is half-open, until it succeeds or fails."""
    circuit = Circuit(min_delay=2).failed(100, "no route to host", jitter=1)
    assert [str(circuit.state(now)) for now in (100, 101.9, 102, 500)] == [
        "open",
        "open",
        "half_open",
        "half_open",
    ]
    assert circuit.error == "no route to host"
    assert str(circuit.succeeded(102).state(102)) == "closed"
    assert str(circuit.failed(102, "again", 1).state(102)) == "open"


def test_delay_doubles_up_to_the_maximum():
    """Every failed retry doubles the delay, until ``max_delay``."""
    assert fail_times(6, min_delay=1, max_delay=10)[2] == [1, 2, 4, 8, 10, 10]


def test_jitter_spreads_over_the_upper_half():
    """Jitter 0 halves the delay, 1 leaves it."""
    assert [fail_times(1, jitter, min_delay=8)[2] for jitter in (0.0, 0.5, 1.0)] == [[4], [6], [8]]


def test_failures_of_one_outage_count_once():
    """A batch of workloads that all fail does not drive the delay up; the last error is shown."""
    once = Circuit().failed(0, "first", 1)
    twice = once.failed(0.5, "second", 1)
    assert (twice.failures, twice.retry_at, twice.error) == (1, once.retry_at, "second")


def test_flapping_backend_is_tried_less_and_less():
    """A success that does not last ``max_delay`` does not start the row anew."""
    circuit, now, _ = fail_times(3, min_delay=1, max_delay=60)
    again = circuit.succeeded(now).failed(now + 59.9, "boom", 1)
    assert (again.failures, again.retry_at - now - 59.9) == (4, pytest.approx(8))


def test_lasting_success_starts_the_row_anew():
    """A backend that was fine for ``max_delay`` is a healthy one that fails for the first time."""
    circuit, now, _ = fail_times(3, min_delay=1, max_delay=60)
    again = circuit.succeeded(now).failed(now + 60, "boom", 1)
    assert (again.failures, again.retry_at) == (1, now + 61)


def test_a_failure_forgets_when_it_was_last_closed():
    """Failed tries, however long they go on, are no success that has lasted."""
    circuit = Circuit(min_delay=1, max_delay=10).failed(0, "boom", 1).succeeded(5).failed(6, "boom", 1)
    assert (circuit.failures, circuit.closed_at, circuit.failed(100, "boom", 1).failures) == (2, None, 3)


def test_success_forgets_the_error():
    """A closed circuit has neither an error nor a retry."""
    closed = Circuit().failed(0, "boom", 1).succeeded(5)
    assert (closed.error, closed.retry_at, closed.closed_at) == (None, None, 5)


def test_success_of_a_closed_circuit_is_no_change():
    """The caller sees by identity that nothing happened."""
    circuit = Circuit()
    assert circuit.succeeded(1) is circuit


@given(st.floats(0.01, 100), st.floats(0, 1000), st.integers(1, 60), st.floats(0, 1), st.integers(1, 2000))
def test_delays_grow_and_stay_in_bounds(low, extra, count, jitter, many):
    """With equal jitter no delay is shorter than the one before, and all lie between half and whole bounds."""
    high = low + extra
    delays = fail_times(count, jitter, min_delay=low, max_delay=high)[2]
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(delays))
    assert all(low / 2 - 1e-6 <= delay <= high + 1e-6 for delay in delays)
    worn = Circuit(min_delay=low, max_delay=high, failures=many, retry_at=0.0).failed(1, "boom", 1)
    assert worn.retry_at - 1 <= high + 1e-6


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (1_000, 60), (100_000, 60)]
)
def test_delays_double_to_a_bound_however_long_it_lasts(failures, seconds):
    """Nothing overflows after a night of failures."""
    assert growing_delay(failures, 1.0, 60.0) == seconds
