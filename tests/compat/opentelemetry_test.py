"""Traces of programs that OpenTelemetry instruments (pika), with the server's spans between theirs.

The collector is of this file; what it gets has to be what OpenTelemetry's own schema takes.
"""

import base64
import http.server
import json
import queue
import threading
import uuid

import pika
from google.protobuf import json_format
from opentelemetry.instrumentation.pika import PikaInstrumentor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from harness import CONTROL_PORT, HOST, PORT, equal, restart, run, test

SERVER, INTERNAL = 2, 1
arrived = queue.Queue()


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes what is posted to /v1/traces."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json":
            for span in spans_in(json.loads(body)):
                arrived.put(span)
            self.answer(200)
        else:
            self.answer(404)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def spans_in(document):
    """The spans of a request, parsed by OpenTelemetry's schema, which refuses what it does not know."""
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                # OTLP writes ids in hexadecimal digits, where the JSON of protocol buffers has Base64.
                for key in ("traceId", "spanId", "parentSpanId"):
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    parsed = json_format.ParseDict(document, ExportTraceServiceRequest())
    equal([len(parsed.resource_spans), len(parsed.resource_spans[0].scope_spans)], [1, 1], "resources and scopes")
    return parsed.resource_spans[0].scope_spans[0].spans


def spans(count):
    got = [arrived.get(timeout=20) for _ in range(count)]
    return sorted(got, key=lambda span: span.start_time_unix_nano)


def attributes(span):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def number(octets):
    return int.from_bytes(octets, "big")


class Program:
    """A program that is instrumented, and the spans that it has told."""

    def __init__(self, **settings):
        self.told = InMemorySpanExporter()
        self.provider = TracerProvider(**settings)
        self.provider.add_span_processor(SimpleSpanProcessor(self.told))
        self.connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT))
        self.channel = self.connection.channel()
        PikaInstrumentor.instrument_channel(self.channel, tracer_provider=self.provider)

    def work(self, name):
        """Takes one message and acknowledges it."""

        def take(channel, method, _properties, body):
            bodies.append(body)
            channel.basic_ack(method.delivery_tag)
            channel.stop_consuming()

        bodies = []
        self.channel.basic_consume(name, take)
        self.channel.start_consuming()
        self.connection.close()
        return bodies


def switch_on(collector):
    restart("term", f'tracing.endpoint="http://127.0.0.1:{collector.server_port}"', 'tracing.service_name="jobs"')


@test("restart")
def the_servers_spans_are_between_those_of_publisher_and_worker():
    publisher, worker = Program(), Program()
    name = f"otel-{uuid.uuid4()}"
    publisher.channel.queue_declare(name, auto_delete=True)
    publisher.channel.confirm_delivery()
    publisher.channel.basic_publish("", name, b"job", pika.BasicProperties(message_id="7"))
    equal(worker.work(name), [b"job"])
    [produced], [consumed] = publisher.told.get_finished_spans(), worker.told.get_finished_spans()
    publish, wait, deliver = spans(3)
    equal([publish.name, wait.name, deliver.name], [f"publish {name}", f"queue {name}", f"deliver {name}"])
    equal([publish.kind, wait.kind, deliver.kind], [SERVER, INTERNAL, SERVER])
    traces = {number(span.trace_id) for span in (publish, wait, deliver)}
    equal(traces | {consumed.context.trace_id}, {produced.context.trace_id}, "traces")
    equal(number(publish.parent_span_id), produced.context.span_id, "the publish's parent")
    equal(wait.parent_span_id, publish.span_id, "the wait's parent")
    equal(deliver.parent_span_id, wait.span_id, "the delivery's parent")
    equal(consumed.parent.span_id, produced.context.span_id, "the worker's parent")
    equal(attributes(publish)["messaging.message.id"], "7")
    equal(attributes(deliver)["leveret.outcome"], "acknowledged")
    # On one clock, each begins after what it is from.
    order = [produced.start_time, publish.start_time_unix_nano, wait.start_time_unix_nano,
             deliver.start_time_unix_nano, consumed.start_time]
    equal(sorted(order), order, "the order of their beginnings")


@test("restart")
def what_a_publisher_does_not_sample_is_not_told():
    silent, loud = Program(sampler=ALWAYS_OFF), Program()
    silent.channel.queue_declare("otel", auto_delete=True)
    silent.channel.basic_publish("", "otel", b"unsampled")
    equal(Program().work("otel"), [b"unsampled"])
    loud.channel.basic_publish("", "unknown", b"sampled")
    equal([span.name for span in spans(1)], ["publish unknown"])


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        if CONTROL_PORT:
            switch_on(collector)
        run()
