#!/usr/bin/env bash
# Records all sessions anew against the RabbitMQ on 127.0.0.1:PORT: record_all.sh PORT. tests/install.sh gets the clients.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(dirname "$here")
work=$out/../.work
upstream=$1
port=$((upstream + 1))
jars=/usr/share/java/amqp-client.jar:/usr/share/java/slf4j-api.jar:/usr/share/java/slf4j-nop.jar

mkdir -p "$work/sessions"
GO111MODULE=off GOPATH=$work/go:/usr/share/gocode go build -o "$work/sessions/go" "$here/go/sessions.go"
javac -cp "$jars" -d "$work/sessions" "$here/Sessions.java"

record() {
    local client=$1 name=$2
    shift 2
    echo "$client $name"
    python3 "$out/record.py" "$upstream" "$port" "$out/$client-$name.txt" -- "$@" LISTEN_PORT "$name"
}

for name in work_queue confirms channel_errors arguments shortcuts exclusive cancelled taking expiry connection_errors \
    refused_logins; do
    record pika "$name" "$work/venv/bin/python" "$here/pika_sessions.py"
done
for name in transactions prefetch amqplain; do
    record pyamqp "$name" "$work/venv/bin/python" "$here/pyamqp_sessions.py"
done
for name in routing replies dead_letters; do
    record amqplib "$name" node "$here/amqplib_sessions.mjs"
done
for name in redelivery properties; do
    record amqp091-go "$name" "$work/sessions/go"
done
record java priorities java -cp "$jars:$work/sessions" Sessions
