# SPDX-License-Identifier: Apache-2.0
"""The steps of the machine, which the thread of the API calls does."""

from __future__ import annotations

from typing import NamedTuple


class Create(NamedTuple):
    """Make the pod of that dispatch; ``built`` before it is asked for, ``invalid`` or ``answered`` in the end."""

    dispatch: int


class AskNamespace(NamedTuple):
    """Find out what neutral pods meet there; answered by ``namespace_answered``."""

    namespace: str


class AskServer(NamedTuple):
    """Find out whether the server serves anybody; answered by ``server_answered``."""


class Wait(NamedTuple):
    """Nothing to do until then, or until something has changed."""

    until: float


Step = Create | AskNamespace | AskServer | Wait
