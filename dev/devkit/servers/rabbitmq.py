# SPDX-License-Identifier: Apache-2.0
"""A real RabbitMQ from Debian's package ``rabbitmq-server``, as a node of its own beside the system's."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from pathlib import Path

import amqp

from devkit.servers.process import ServerProcess, free_port

# Not the script in the PATH: that one changes to the user rabbitmq.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def is_installed() -> bool:
    return _SERVER.exists()


class ForeignRabbit:
    """A RabbitMQ that runs already and is only used."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self) -> str:
        return self._url


class _PortMapper(ServerProcess):
    """Erlang's. Without one of its own the node would start one that nobody ends."""

    name = "epmd"

    def _prepare(self) -> None:
        pass

    def _command(self) -> tuple[list[str], dict[str, str]]:
        program = shutil.which("epmd") or "epmd"
        return [program, "-port", str(self.port), "-address", "127.0.0.1"], dict(os.environ)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


class RabbitServer(ServerProcess):
    """One node with the user ``guest``, with an Erlang port mapper of its own beside it."""

    name = "RabbitMQ"
    start_timeout = 90.0

    def __init__(self) -> None:
        super().__init__()
        self._dist_port = free_port()
        self._epmd = _PortMapper()

    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def stop(self) -> None:
        super().stop()
        self._epmd.stop()

    def _prepare(self) -> None:
        (self.folder / "rabbitmq.conf").write_text(
            "log.console.level = info\ndisk_free_limit.absolute = 1MB\n"
        )
        (self.folder / "rabbitmq-env.conf").write_text("")
        (self.folder / "advanced.config").write_text("[].\n")
        (self.folder / "enabled_plugins").write_text("[].\n")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        self._epmd.start()

    def _command(self) -> tuple[list[str], dict[str, str]]:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),  # where Erlang looks for its cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The script then becomes the node instead of its parent.
            "RUNNING_UNDER_SYSTEMD": "true",
            **{f"RABBITMQ_{name}": value for name, value in self._settings().items()},
        }
        return [str(_SERVER)], env

    def _settings(self) -> dict[str, str]:
        return {
            "NODENAME": f"dispatch-{self.port}@localhost",
            "NODE_IP_ADDRESS": "127.0.0.1",
            "NODE_PORT": str(self.port),
            "DIST_PORT": str(self._dist_port),
            "SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "MNESIA_BASE": str(self._data),
            "PLUGINS_EXPAND_DIR": str(self.folder / "plugins"),
            "GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "LOG_BASE": str(self.folder),
            "LOGS": "-",
            "PID_FILE": str(self.folder / "server.pid"),
            "CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
        }

    def _answers(self) -> bool:
        try:
            with amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=5, read_timeout=5):
                return True
        except (amqp.AMQPError, OSError):
            return False
