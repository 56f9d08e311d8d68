#!/usr/bin/env bash
# Installs what the tests need on Debian 12: Python, Go, Java, Node, PHP and Rust clients of AMQP 0-9-1, a browser, valgrind
# for the instruction counts, and a library that turns a server's clock.
# Safe to repeat; does nothing, quickly, when all is there. Ends with a plain sentence and status 1 when
# something cannot be had. Python's part goes to tests/.work, which git ignores.
set -euo pipefail
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$tests/.work
mkdir -p "$work"

fail() { echo "tests/install.sh: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Debian packages, each asked for only when what it brings is missing.
wanted=()
have python3 || wanted+=(python3)
python3 -c 'import venv, ensurepip' 2>/dev/null || wanted+=(python3-venv)
have go || wanted+=(golang-go)
[ -d /usr/share/gocode/src/github.com/rabbitmq/amqp091-go ] || wanted+=(golang-github-rabbitmq-amqp091-go-dev)
have javac || wanted+=(default-jdk-headless)
[ -e /usr/share/java/amqp-client.jar ] || wanted+=(librabbitmq-client-java)
[ -e /usr/share/java/slf4j-api.jar ] && [ -e /usr/share/java/slf4j-nop.jar ] || wanted+=(libslf4j-java)
have node || wanted+=(nodejs)
have npm || wanted+=(npm)
have php || wanted+=(php-cli)
[ -e /usr/share/php/PhpAmqpLib/autoload.php ] || wanted+=(php-amqplib)
[ -e "$(echo /usr/lib/*/faketime/libfaketimeMT.so.1)" ] || wanted+=(libfaketime)
have cc || wanted+=(build-essential)
have valgrind || wanted+=(valgrind)
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || wanted+=(chromium fonts-dejavu-core)
have openssl || wanted+=(openssl)
if [ ${#wanted[@]} -gt 0 ]; then
    have apt-get || fail "missing: ${wanted[*]}; install them with this system's package tool and run again."
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    install() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${wanted[@]}"; }
    # The package lists may be absent or stale: fetch them only when the first try fails.
    install >"$work/apt.log" 2>&1 ||
        { "${root[@]}" apt-get update -qq >>"$work/apt.log" 2>&1 && install >>"$work/apt.log" 2>&1; } ||
        { tail -n 20 "$work/apt.log" >&2; fail "apt-get could not install: ${wanted[*]}."; }
fi
have cargo || fail "cargo is missing; install Rust (https://rustup.rs) and run again."
node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' || fail "Node.js 18 or newer is needed, this is $(node --version)."

# True when the stamp says that exactly these files were installed before.
unchanged() { [ -e "$1" ] && cat "${@:2}" | cmp -s - "$1"; }

venv=$work/venv
requirements=$tests/compat/requirements.txt
if ! "$venv/bin/python" -c '' 2>/dev/null || ! unchanged "$work/venv.stamp" "$requirements"; then
    python3 -m venv --clear "$venv" || fail "python3 could not make a virtual environment."
    "$venv/bin/pip" -q --disable-pip-version-check install -r "$requirements" ||
        fail "pip could not install the Python clients of tests/compat/requirements.txt."
    cat "$requirements" >"$work/venv.stamp"
fi

# RabbitMQ itself, to exchange definitions with: unpacked, so that nothing of it is set up or started.
peer=$work/rabbitmq
if [ ! -e "$peer/.stamp" ]; then
    have apt-get || fail "RabbitMQ's package cannot be had: there is no apt-get."
    packages=(rabbitmq-server)
    for part in base asn1 crypto eldap inets mnesia os-mon parsetools public-key runtime-tools ssl syntax-tools tools xmerl; do
        packages+=("erlang-$part")
    done
    rm -rf "$peer"; mkdir -p "$peer/packages"
    download() { (cd "$peer/packages" && apt-get download -qq "${packages[@]}"); }
    root=(); [ "$(id -u)" = 0 ] || root=(sudo)
    download >"$work/apt.log" 2>&1 || { "${root[@]}" apt-get update -qq >>"$work/apt.log" 2>&1 && download >>"$work/apt.log" 2>&1; } ||
        { tail -n 20 "$work/apt.log" >&2; fail "apt-get could not download: ${packages[*]}."; }
    for package in "$peer"/packages/*.deb; do dpkg -x "$package" "$peer"; done
    rm -rf "$peer/packages"
    touch "$peer/.stamp"
fi

for folder in "$tests/compat/node" "$tests/page" "$tests/../examples/javascript"; do
    stamp=$folder/node_modules/.stamp
    if ! unchanged "$stamp" "$folder/package-lock.json"; then
        (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts) ||
            fail "npm could not install what is needed in ${folder#"$tests"/}."
        cat "$folder/package-lock.json" >"$stamp"
    fi
done

for folder in "$tests/compat/lapin" "$tests/../examples/rust"; do
    cargo fetch -q --locked --manifest-path "$folder/Cargo.toml" --target "$(rustc -vV | sed -n 's/^host: //p')" ||
        fail "cargo could not fetch the crates of ${folder#"$tests"/}."
done

# Two crates of RabbitMQ's with their own tests, in a workspace where one compilation serves both.
tools=$work/rabbitmq-tools
sources=("$tests/compat/rabbitmq_tools/"{Cargo.toml,Cargo.lock,sources.py})
if ! unchanged "$tools/.stamp" "${sources[@]}"; then
    python3 "$tests/compat/rabbitmq_tools/sources.py" "$tools" || fail "cargo could not fetch rabbitmq_http_client and rabbitmqadmin."
    cargo fetch -q --locked --manifest-path "$tools/Cargo.toml" --target "$(rustc -vV | sed -n 's/^host: //p')" ||
        fail "cargo could not fetch the crates of rabbitmq_http_client and rabbitmqadmin."
    cat "${sources[@]}" >"$tools/.stamp"
fi
