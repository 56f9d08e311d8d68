"""Puts the sources of rabbitmq_http_client and rabbitmqadmin, as published, into a workspace of their own.

    sources.py DIRECTORY

Their tests have RabbitMQ's usual ports written into them. Those are exchanged for ports of our own, so that the tests
can run beside a broker of this machine and beside each other; the default port of the program rabbitmqadmin likewise,
since its tests call it without one. The tests of TLS in rabbitmq_http_client are left out: they are not run by default
anyway, and need OpenSSL's headers to compile. Nothing else is changed.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSIONS = {"rabbitmq_http_client": "0.92.0", "rabbitmqadmin": "2.35.0"}
# The ports for AMQP and HTTP that each suite asks.
PORTS = {"rabbitmq_http_client": (7371, 7372), "rabbitmqadmin": (7375, 7376)}


def registry(directory):
    """Where cargo has unpacked the crates."""
    probe = directory / "probe"
    probe.mkdir(parents=True)
    dependencies = "".join(f'{name} = "={version}"\n' for name, version in VERSIONS.items())
    package = '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2024"\n[lib]\npath = "lib.rs"\n[workspace]\n'
    (probe / "Cargo.toml").write_text(f"{package}[dependencies]\n{dependencies}")
    (probe / "lib.rs").touch()
    command = ["cargo", "metadata", "-q", "--format-version", "1", "--manifest-path", probe / "Cargo.toml"]
    packages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    shutil.rmtree(probe)
    return {package["name"]: Path(package["manifest_path"]).parent for package in packages if package["name"] in VERSIONS}


def edit(path, *changes):
    text = path.read_text()
    for pattern, replacement in changes:
        text = re.sub(pattern, replacement, text)
    path.write_text(text)


def main():
    directory = Path(sys.argv[1])
    shutil.rmtree(directory, ignore_errors=True)
    for name, source in registry(directory).items():
        crate = directory / name
        shutil.copytree(source, crate)
        # What its authors build with is not ours to follow.
        shutil.rmtree(crate / ".cargo", ignore_errors=True)
        amqp, http = PORTS[name]
        for test in (crate / "tests" / "integration").glob("*.rs"):
            edit(test, (r"\b5672\b", str(amqp)), (r"\b15672\b", str(http)))
    edit(directory / "rabbitmq_http_client/tests/integration/main.rs", (r"mod \w+_tls_tests;\n", ""))
    for fixture in (directory / "rabbitmqadmin/tests/fixtures/config_files").iterdir():
        edit(fixture, (r"\b15672\b", str(PORTS["rabbitmqadmin"][1])))
    edit(directory / "rabbitmqadmin/src/constants.rs", (r"= 15672;", f"= {PORTS['rabbitmqadmin'][1]};"))
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(HERE / name, directory)


if __name__ == "__main__":
    main()
