# SPDX-License-Identifier: Apache-2.0
"""A local engine with real processes, and the simulation's, told to do the same."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, Protocol

from integration.sides import Engines, VirtualTime

from airflow_dispatch_provider.engines.engine import Found, Job
from airflow_dispatch_provider.lifecycle.events import Began, Room
from airflow_dispatch_provider.simulation.hosts import Host, Process
from airflow_dispatch_provider.simulation.places import LOCAL
from airflow_dispatch_provider.simulation.schedulers import Instance, Workload
from tests.integration.local import local_runners
from tests.integration.local.conftest import pid_of
from tests.integration.local.test_local_engine import Trial
from tests.support import make_task, wait_until

_STREAMS = 3
"""Open files of a process that can open no other one."""


class Side(Protocol):
    """One machine, and the engines of two schedulers."""

    def submit(self, holds: bool = False) -> int:
        """A task, whose process begins unless it holds: its dispatch."""

    def submit_spoilt(self) -> int:
        """One that cannot be pickled."""

    def begun(self) -> int:
        """One that has begun, and runs."""

    def held(self) -> int:
        """One whose process has not asked for leave to start yet, and does not."""

    def end_all(self) -> None:
        """All that runs ends."""

    def kill(self, number: int) -> None:
        """Its process."""

    def stop_template(self) -> None: ...

    def kill_template(self) -> None: ...

    def starve_template(self) -> None:
        """It can fork no process."""

    def revoke(self, number: int) -> None: ...

    def withdraw(self, *numbers: int) -> None: ...

    def pid(self, number: int) -> int | None:
        """Its process, if its engine has heard of one."""

    def adopt(self, number: int | None, runs: bool) -> int:
        """The second scheduler asks for it; None: for one that nobody has."""

    def room(self) -> Room: ...

    def hears(self, number: int, kind: Any, heir: bool = False) -> list[Any]: ...

    def wait_until(self, condition: Callable[[], bool]) -> None: ...


class RealSide:
    """See ``Side``."""

    def __init__(self, make_engine: Callable[..., Trial]) -> None:
        self._engine = make_engine().wait_ready()
        self._make_engine, self._heir = make_engine, None
        self._numbers = count(1)
        self._workloads: dict[int, Any] = {}

    def submit(self, holds: bool = False) -> int:
        return self._submit("hold" if holds else "begin_and_end")

    def _submit(self, action: str, **fields: Any) -> int:
        number = next(self._numbers)
        workload = self._workloads[number] = make_task(f"{action}-{number}", **fields)
        self._engine.submit([Job(number, number, workload)])
        return number

    def submit_spoilt(self) -> int:
        return self._submit("nothing", executor_config={"x": local_runners.Unpicklable()})

    def begun(self) -> int:
        number = self._submit("begin")
        self.hears(number, Began)
        return number

    def held(self) -> int:
        number = self._submit("hold")
        self._pid(number)
        return number

    def _pid(self, number: int) -> int:
        return pid_of(f"pid.{self._workloads[number].ti.task_id}")

    def end_all(self) -> None:
        local_runners.say("go", "")

    def kill(self, number: int) -> None:
        os.kill(self._pid(number), signal.SIGKILL)

    def stop_template(self) -> None:
        os.kill(self._engine.template, signal.SIGSTOP)

    def kill_template(self) -> None:
        os.kill(self._engine.template, signal.SIGKILL)

    def starve_template(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(self._engine.template, resource.RLIMIT_NOFILE, (_STREAMS, hard))

    def revoke(self, number: int) -> None:
        self._engine.revoke(number)

    def withdraw(self, *numbers: int) -> None:
        self._engine.withdraw(numbers)

    def pid(self, number: int) -> int | None:
        return self._engine.pids()[str(number)]

    def adopt(self, number: int | None, runs: bool) -> int:
        self._heir = self._heir or self._make_engine().wait_ready()
        workload = make_task() if number is None else self._workloads[number]
        asked = next(self._numbers)
        self._heir.adopt([Found(asked, asked, workload.ti, runs)])
        return asked

    def room(self) -> Room:
        return self._engine.room()

    def hears(self, number: int, kind: Any, heir: bool = False) -> list[Any]:
        engine = self._heir if heir else self._engine
        assert engine is not None
        wait_until(lambda: any(isinstance(event, kind) for event in engine.about(number)))
        return engine.about(number)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: (self._engine.hear(), condition())[1])


class _Last(Random):
    """Everything lasts as long as it may."""

    def choice(self, seq: Any) -> Any:
        return seq[-1]


class _Time(VirtualTime):
    def random(self, *of: object) -> Random:
        return _Last(str(of))


class ModelSide:
    """See ``Side``."""

    def __init__(self) -> None:
        self._world = _Time()
        self._host = Host(self._world, "local", LOCAL)
        self._engine, self._heir = self._host.engine(4), self._host.engine(4)
        self._engines = Engines(self._world, self._engine, self._heir)
        self._numbers = count(1)
        for number, engine in enumerate((self._engine, self._heir)):
            engine.start(str(number))
        self.wait_until(lambda: self._engine.is_ready and self._heir.is_ready)

    def submit(self, holds: bool = False) -> int:
        self._host.idle = holds
        return self._submit()

    def _submit(self, is_spoilt: bool = False) -> int:
        task, number = self._world.queued(), next(self._numbers)
        task.spoilt_until = self._world.now + 1 if is_spoilt else 0
        self._engine.submit([Job(number, task.key, Workload(task, task.id))])
        return number

    def submit_spoilt(self) -> int:
        return self._submit(is_spoilt=True)

    def begun(self) -> int:
        number = self.submit()
        self._engines.hears(number, Began)
        return number

    def held(self) -> int:
        number = self.submit(holds=True)
        self.wait_until(lambda: any(process.number == number for process in self._host.processes()))
        return number

    def end_all(self) -> None:
        """It does so by itself."""

    def _process(self, number: int) -> Process:
        return next(process for process in self._host.processes() if process.number == number)

    def kill(self, number: int) -> None:
        self._host.kill(self._process(number), "killed")

    def stop_template(self) -> None:
        self._host.slow = True

    def kill_template(self) -> None:
        self._host.slow = False
        self._engine.kill_template()

    def starve_template(self) -> None:
        self._host.refuses = True

    def revoke(self, number: int) -> None:
        process = next((each for each in self._host.processes() if each.number == number), None)
        if process is not None and process.began:
            process.task.state = "scheduled"  # as Airflow has it by then
        self._engine.revoke(number)

    def withdraw(self, *numbers: int) -> None:
        self._engine.withdraw(numbers)

    def pid(self, number: int) -> int | None:
        return next((each.pid for each in self._host.processes() if each.number == number), None)

    def adopt(self, number: int | None, runs: bool) -> int:
        task = self._world.queued() if number is None else self._process(number).task
        asked = next(self._numbers)
        self._heir.adopt([Found(asked, asked, Instance(task, task.id), runs)])
        return asked

    def room(self) -> Room:
        return self._engine.room()

    def hears(self, number: int, kind: Any, heir: bool = False) -> list[Any]:
        return self._engines.hears(number, kind, heir)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        self._engines.until(condition)
