# SPDX-License-Identifier: Apache-2.0
"""AWS by moto, in this process: what executors ask it for over HTTP, tests look up and change in its objects."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
import requests
from moto.awslambda_simple.models import lambda_simple_backends
from moto.batch.models import JobStatus
from moto.batch_simple.models import batch_simple_backends
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import ecs_backends
from moto.moto_api import state_manager
from moto.server import ThreadedMotoServer

REGION, ACCOUNT = "us-east-1", "123456789012"


class Aws:
    """A server, and what the executors need there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.reset()

    def reset(self) -> None:
        """Empty it."""
        url = self.url
        requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()
        # Neither service has Docker here: jobs and functions are noted down, and end as the test says.
        config = {"batch": {"use_docker": False}, "lambda": {"use_docker": False}}
        requests.post(f"{url}/moto-api/config", json=config, timeout=10).raise_for_status()
        state_manager.set_transition("ecs::task", {"progression": "manual", "times": 1_000_000})

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, region_name=REGION, endpoint_url=self.url, **keys)

    def connection(self, url: str) -> str:
        """An Airflow connection to it through ``url``, as the environment holds one."""
        # boto would wait for a minute, several times, on the scheduler's thread.
        patience = {"connect_timeout": 1, "read_timeout": 1, "retries": {"total_max_attempts": 1}}
        extra = {"endpoint_url": url, "region_name": REGION, "config_kwargs": patience}
        return json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra})

    def role(self) -> str:
        made = self.client("iam").create_role(RoleName="it", AssumeRolePolicyDocument="{}")
        return str(made["Role"]["Arn"])


@contextmanager
def serving() -> Iterator[Aws]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Aws(f"http://{host}:{port}")
    finally:
        server.stop()


class Service:
    """One of the three executors, and its side of the server."""

    path: str
    section: str
    attempts: str
    """The option with the number of attempts to submit."""

    can_stop = True

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.prepare()

    def prepare(self) -> None:
        """Make there what the executor needs."""

    def backend(self, **options: Any) -> dict[str, Any]:
        """One entry of [dispatch] backends."""
        given = {"region_name": REGION, self.attempts: "1", **self.options(), **options}
        return {"executor": self.path, "slots": 4, "config": {self.section: given}}

    def options(self) -> dict[str, Any]:
        raise NotImplementedError

    def received(self) -> list[str]:
        """All that arrived there, as JSON, in order."""
        raise NotImplementedError

    def end(self, exit_code: int) -> None:
        """All that was received has ended so."""
        raise NotImplementedError

    def stopped(self) -> bool:
        """Whether something was stopped."""
        raise NotImplementedError

    def submission(self) -> tuple[Any, str]:
        """The object and the name of its method that takes a submission."""
        raise NotImplementedError

    @contextmanager
    def refusing(self) -> Iterator[list[Any]]:
        """Submissions are answered with 500; the rest works. Gives the list of those."""
        refused: list[Any] = []

        def refuse(*args: Any, **kwargs: Any) -> Any:
            refused.append(kwargs)
            raise RuntimeError("refused by the test")

        target, method = self.submission()
        before = object.__getattribute__(target, "__dict__").get(method)
        _replace(target, method, refuse)
        try:
            yield refused
        finally:
            object.__delattr__(target, method)
            if before is not None:
                _replace(target, method, before)


class Ecs(Service):
    path = "airflow.providers.amazon.aws.executors.ecs.ecs_executor.AwsEcsExecutor"
    section = "aws_ecs_executor"
    attempts = "max_run_task_attempts"

    def prepare(self) -> None:
        ecs = self.aws.client("ecs")
        ecs.create_cluster(clusterName="it")
        container = {"name": "airflow", "image": "airflow", "memory": 128}
        ecs.register_task_definition(family="it", containerDefinitions=[container])
        self._store = ecs_backends[ACCOUNT][REGION]
        _replace(self._store, "stop_task", _as_aws_does(self._store.stop_task))

    def options(self) -> dict[str, Any]:
        network = {"subnets": "subnet-1", "security_groups": "sg-1"}
        return {
            **{"cluster": "it", "container_name": "airflow", "task_definition": "it"},
            **{"launch_type": "FARGATE", "check_health_on_startup": "True", **network},
        }

    @property
    def _tasks(self) -> list[Any]:
        return list(self._store.tasks.get("it", {}).values())

    def received(self) -> list[str]:
        return [json.dumps(task.overrides) for task in self._tasks]

    def end(self, exit_code: int) -> None:
        for task in self._tasks:
            task.containers[0].exitCode = exit_code
            task.started_at = time.time()
            task.last_status = task.desired_status = "STOPPED"

    def stopped(self) -> bool:
        return any("SIGTERM" in task.stopped_reason for task in self._tasks)

    def submission(self) -> tuple[Any, str]:
        return self._store, "run_task"


def _replace(store: Any, method: str, by: Callable[..., Any]) -> None:
    """Batch without Docker passes on what it is asked for, and ``setattr`` does not get past that."""
    object.__setattr__(store, method, by)


def _as_aws_does(stop_task: Callable[..., Any]) -> Callable[..., Any]:
    """moto fails over a task that is not there; by AWS's own answer the executor tells that it can work."""

    def stop(*args: Any, **kwargs: Any) -> Any:
        try:
            return stop_task(*args, **kwargs)
        except Exception as error:
            raise InvalidParameterException("The referenced task was not found.") from error

    return stop


class Batch(Service):
    path = "airflow.providers.amazon.aws.executors.batch.batch_executor.AwsBatchExecutor"
    section = "aws_batch_executor"
    attempts = "max_submit_job_attempts"

    def prepare(self) -> None:
        batch = self.aws.client("batch")
        made = batch.create_compute_environment(
            computeEnvironmentName="machines", type="UNMANAGED", state="ENABLED", serviceRole=self.aws.role()
        )
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        batch.create_job_queue(
            jobQueueName="jobs", state="ENABLED", priority=1, computeEnvironmentOrder=order
        )
        container = {"image": "airflow", "vcpus": 1, "memory": 128}
        batch.register_job_definition(
            jobDefinitionName="airflow", type="container", containerProperties=container
        )
        self._store = batch_simple_backends[ACCOUNT][REGION]
        self._jobs: list[Any] = []
        _replace(self._store, "_mark_job_as_finished", self._note)

    def _note(self, include_start_attempt: bool, job: Any) -> None:
        """In place of the end that moto gives a job at once."""
        self._store.backend._jobs[job.job_id] = job
        job.status = JobStatus.RUNNING
        job.terminate = lambda reason: job._mark_stopped(success=False)
        self._jobs.append(job)

    def options(self) -> dict[str, Any]:
        return {"job_name": "airflow", "job_queue": "jobs", "job_definition": "airflow"}

    def received(self) -> list[str]:
        return [json.dumps(job.container_overrides) for job in self._jobs]

    def end(self, exit_code: int) -> None:
        for job in self._jobs:
            job._mark_stopped(success=exit_code == 0)

    def stopped(self) -> bool:
        return any(job.status == JobStatus.FAILED for job in self._jobs)

    def submission(self) -> tuple[Any, str]:
        return self._store, "submit_job"


class Lambda(Service):
    path = "airflow.providers.amazon.aws.executors.aws_lambda.lambda_executor.AwsLambdaExecutor"
    section = "aws_lambda_executor"
    attempts = "max_invoke_attempts"
    can_stop = False

    def prepare(self) -> None:
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("airflow.py", "")
        self.aws.client("lambda").create_function(
            FunctionName="airflow",
            Runtime="python3.11",
            Role=self.aws.role(),
            Handler="airflow.run",
            Code={"ZipFile": code.getvalue()},
        )
        self._sqs = self.aws.client("sqs")
        self._results, self.dead_letters = (
            urlsplit(self._sqs.create_queue(QueueName=name)["QueueUrl"]).path for name in ("results", "dead")
        )
        self._store = lambda_simple_backends[ACCOUNT][REGION]
        self._payloads: list[str] = []
        _replace(self._store, "invoke", self._note)

    def _note(self, function_name: str, qualifier: Any, body: str, *args: Any) -> bytes:
        self._payloads.append(body if isinstance(body, str) else bytes(body).decode())
        return b""

    def options(self) -> dict[str, Any]:
        return {
            "function_name": "airflow",
            "queue_url": self.aws.url + self._results,
            "dead_letter_queue_url": self.aws.url + self.dead_letters,
            "check_health_on_startup": "True",
        }

    def received(self) -> list[str]:
        return list(self._payloads)

    def end(self, exit_code: int) -> None:
        """As the function of the provider's image does."""
        for payload in self._payloads:
            self.send(self._results, task_key=json.loads(payload)["task_key"], return_code=exit_code)

    def die(self) -> None:
        """As where the function could not run: AWS puts what it was given into the dead letter queue."""
        for payload in self._payloads:
            self.send(self.dead_letters, **json.loads(payload))

    def send(self, queue: str, **body: Any) -> None:
        self._sqs.send_message(QueueUrl=self.aws.url + queue, MessageBody=json.dumps(body))

    def stopped(self) -> bool:
        return False

    def submission(self) -> tuple[Any, str]:
        return self._store, "invoke"


SERVICES: dict[str, Callable[[Aws], Service]] = {"ecs": Ecs, "batch": Batch, "lambda": Lambda}
