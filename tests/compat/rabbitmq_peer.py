"""RabbitMQ of Debian's packages, unpacked into tests/.work: one node on loopback, with a directory of its own.

It needs epmd, which it would start and leave behind; so one of our own runs here before, on a port of its own, and both
are ended by their process ids.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

UNPACKED = Path(os.environ["COMPAT_WORK"]) / "rabbitmq"
START_SECONDS = 90


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class RabbitMQ:
    def __init__(self, plugins):
        self.amqp, self.http, distribution, epmd = (free_port() for _ in range(4))
        self.directory = Path(tempfile.mkdtemp(prefix="rabbitmq-peer-"))
        (self.directory / "plugins").write_text(f"[{','.join(plugins)}].\n")
        (self.directory / "rabbitmq.conf").write_text(f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.http}\n")
        (self.directory / "env").touch()
        erlang = UNPACKED / "usr/lib/erlang"
        settings = {
            "ERL_ROOTDIR": erlang, "PATH": f"{erlang}/bin:{os.environ['PATH']}", "HOME": self.directory, "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": epmd, "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_NODENAME": f"peer{self.amqp}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": self.amqp, "RABBITMQ_DIST_PORT": distribution,
            "RABBITMQ_MNESIA_BASE": self.directory / "mnesia", "RABBITMQ_LOG_BASE": self.directory / "log", "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": self.directory / "pid", "RABBITMQ_ENABLED_PLUGINS_FILE": self.directory / "plugins",
            "RABBITMQ_CONF_ENV_FILE": self.directory / "env", "RABBITMQ_CONFIG_FILE": self.directory / "rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": self.directory / "advanced.config",
            "RABBITMQ_GENERATED_CONFIG_DIR": self.directory / "config",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -setcookie peer",
        }
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        self.log = open(self.directory / "output", "wb")
        quiet = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log, "env": environment}
        self.epmd = subprocess.Popen([next(erlang.glob("erts-*/bin/epmd")), "-port", str(epmd), "-address", "127.0.0.1"], **quiet)
        self.node = subprocess.Popen([UNPACKED / "usr/lib/rabbitmq/bin/rabbitmq-server"], start_new_session=True, **quiet)
        try:
            self.wait()
        except RuntimeError:
            self.stop()
            raise

    def wait(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.http}/").close()
                socket.create_connection(("127.0.0.1", self.amqp)).close()
                return
            except OSError:
                if self.node.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"RabbitMQ did not start: {(self.directory / 'output').read_text()[-2000:]}") from None
                time.sleep(0.1)  # its ports are polled: the one event it gives is that they accept

    def stop(self):
        # The node is its session's leader and Erlang's helpers are in it; nothing of it is worth a clean end.
        for process, kill in ((self.node, lambda: os.killpg(self.node.pid, 9)), (self.epmd, self.epmd.kill)):
            try:
                kill()
            except ProcessLookupError:
                pass
            process.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
