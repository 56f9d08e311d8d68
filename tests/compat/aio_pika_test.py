"""The promises of the broker, held against aio-pika (and aiormq below it)."""

import asyncio
import contextlib
import logging
import random
import uuid

import aio_pika
import aiormq
from aio_pika import DeliveryMode, ExchangeType, Message

from harness import URL, equal, restart, run, test

connections = []
queues = []


async def connect(cls=aio_pika.Connection):
    connection = await aio_pika.connect(URL, connection_class=cls)
    connections.append(connection)
    return connection


async def channel(**options):
    """A channel on a connection of its own."""
    return await (await connect()).channel(**options)


async def declare(at, arguments=None, **options):
    queue = await at.declare_queue(f"queue-{uuid.uuid4()}", arguments=arguments, **options)
    queues.append(queue.name)
    return queue


async def publish(at, queue, *bodies, **properties):
    for body in bodies:
        body = body.encode() if isinstance(body, str) else body
        await at.default_exchange.publish(Message(body, **properties), queue.name)


class Worker:
    """A consumer that keeps its deliveries in a queue."""

    @classmethod
    async def start(cls, name, prefetch=0, at=None, **options):
        worker = cls()
        worker.at = at or await channel()
        if prefetch:
            await worker.at.set_qos(prefetch)
        worker.messages = asyncio.Queue()
        worker.queue = await worker.at.get_queue(name, ensure=False)
        worker.tag = await worker.queue.consume(worker.messages.put, **options)
        return worker

    async def take(self, count):
        return [await asyncio.wait_for(self.messages.get(), 10) for _ in range(count)]

    async def bodies(self, count):
        return [message.body.decode() for message in await self.take(count)]


async def becomes_ready(at, queue, count):
    """Asks until the queue has so many ready messages: RabbitMQ answers ahead of what it has yet to do."""

    async def asking():
        while (await at.declare_queue(queue.name, passive=True)).declaration_result.message_count != count:
            pass

    await asyncio.wait_for(asking(), 10)


async def close_everything():
    for connection in connections:
        with contextlib.suppress(Exception):
            await connection.close()
    connections.clear()
    if queues:
        connection = await aio_pika.connect(URL)
        at = await connection.channel()
        for name in queues:
            await at.queue_delete(name)
        await connection.close()
        queues.clear()


def around(body):
    async def whole():
        try:
            await body()
        finally:
            await close_everything()

    asyncio.run(whole())


async def refused(awaitable, kind, text):
    try:
        await awaitable
    except kind as error:
        if text not in str(error):
            equal(str(error), text)
        return
    raise AssertionError(f"not refused; expected {text}")


async def closing(at):
    """The reason with which the broker closes the channel."""
    closed = asyncio.get_running_loop().create_future()
    at.close_callbacks.add(lambda _channel, reason: closed.done() or closed.set_result(reason))
    return closed


@test()
async def round_robin_in_strict_order():
    at = await channel()
    queue = await declare(at)
    workers = [await Worker.start(queue.name) for _ in range(3)]
    await publish(at, queue, *map(str, range(30)))
    for first, worker in enumerate(workers):
        equal(await worker.bodies(10), [str(n) for n in range(first, 30, 3)])


@test()
async def prefetch_one_is_fair():
    at = await channel()
    queue = await declare(at)
    slow, fast = await Worker.start(queue.name, 1), await Worker.start(queue.name, 1)
    await publish(at, queue, *map(str, range(10)))
    equal(await slow.bodies(1), ["0"])
    for n in range(1, 10):
        [message] = await fast.take(1)
        equal(message.body, str(n).encode())
        await message.ack()


@test()
async def global_prefetch_is_the_channels():
    at = await channel()
    queue = await declare(at)
    await at.set_qos(3, global_=True)
    first, second = await Worker.start(queue.name, at=at), await Worker.start(queue.name, at=at)
    await publish(at, queue, *map(str, range(10)))
    await becomes_ready(at, queue, 7)
    await at.set_qos(5, global_=True)
    await becomes_ready(at, queue, 5)
    while first.messages.qsize() + second.messages.qsize() < 5:
        await at.declare_queue(queue.name, passive=True)


@test()
async def redelivery_when_channel_or_connection_closes():
    for end in ("channel", "connection"):
        at = await channel()
        queue = await declare(at)
        await publish(at, queue, *"01234")
        connection = await connect()
        holder = await Worker.start(queue.name, at=await connection.channel())
        await holder.take(5)
        waiting = await Worker.start(queue.name)
        await (holder.at if end == "channel" else connection).close()
        got = await waiting.take(5)
        equal([(m.body.decode(), m.redelivered) for m in got], [(body, True) for body in "01234"])


@test()
async def nack_reject_and_automatic_acknowledgement():
    at = await channel()
    queue = await declare(at)
    await publish(at, queue, "a", "b", "c")
    first, second, third = [await queue.get() for _ in range(3)]
    await second.nack(requeue=True)
    await first.reject(requeue=True)
    await third.reject(requeue=False)
    again = [await queue.get() for _ in range(2)]
    equal([(m.body, m.redelivered) for m in again], [(b"a", True), (b"b", True)])
    equal(await queue.get(fail=False), None)
    for message in again:
        await message.ack()
    await publish(at, queue, "d")
    worker = await Worker.start(queue.name, no_ack=True)
    equal(await worker.bodies(1), ["d"])
    await worker.at.close()
    equal(await queue.get(fail=False), None)


@test()
async def the_context_of_a_message_rejects_what_fails():
    at = await channel()
    queue = await declare(at)
    await publish(at, queue, "a")
    message = await queue.get()
    with contextlib.suppress(ValueError):
        async with message.process(requeue=True):
            raise ValueError
    async with (await queue.get()).process() as again:
        equal(again.redelivered, True)
    equal(await queue.get(fail=False), None)


@test()
async def iterating_over_a_queue():
    at = await channel()
    queue = await declare(at)
    await publish(at, queue, *"abc")
    bodies = []
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                bodies.append(message.body.decode())
            if len(bodies) == 3:
                break
    equal(bodies, ["a", "b", "c"])


@test()
async def unknown_delivery_tag_and_another_channel():
    connection = await connect()
    owner, other = await connection.channel(), await connection.channel()
    queue = await declare(owner)
    await publish(owner, queue, "a")
    message = await queue.get()
    closed = await closing(other)
    underlay = await other.get_underlay_channel()
    await underlay.basic_ack(message.delivery_tag)
    equal("PRECONDITION_FAILED - unknown delivery tag 1" in str(await asyncio.wait_for(closed, 10)), True)
    await message.ack()
    await publish(owner, queue, "b")
    equal((await queue.get()).body, b"b")


@test("leveret")
async def acknowledgement_timeout():
    at = await channel()
    queue = await declare(at, {"x-consumer-timeout": 1000})
    await publish(at, queue, "a")
    late = await Worker.start(queue.name)
    await late.take(1)
    closed = await closing(late.at)
    waiting = await Worker.start(queue.name)
    why = str(await asyncio.wait_for(closed, 10))
    equal("delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms." in why, True, why)
    [message] = await waiting.take(1)
    equal(message.redelivered, True)
    await message.ack()


@test()
async def declarations_that_differ_or_miss():
    queue = await declare(await channel(), durable=True)
    await refused(
        (await channel()).declare_queue(queue.name, durable=False),
        aiormq.exceptions.ChannelPreconditionFailed,
        f"inequivalent arg 'durable' for queue '{queue.name}' in vhost '/': received 'false' but current is 'true'",
    )
    await refused(
        (await channel()).get_queue("nope"),
        aiormq.exceptions.ChannelNotFoundEntity,
        "NOT_FOUND - no queue 'nope' in vhost '/'",
    )
    exclusive = await (await channel()).declare_queue("", exclusive=True)
    equal(exclusive.name.startswith("amq.gen-"), True)
    await refused(
        (await channel()).get_queue(exclusive.name),
        aiormq.exceptions.ChannelLockedResource,
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{exclusive.name}' in vhost '/'",
    )


@test()
async def returns_and_confirms():
    at = await channel(on_return_raises=True)
    await refused(
        at.default_exchange.publish(Message(b"a"), "nowhere", mandatory=True),
        aio_pika.exceptions.PublishError, "",
    )
    refusing = await declare(at, {"x-max-length": 1, "x-overflow": "reject-publish"})
    await publish(at, refusing, "a")
    await refused(publish(at, refusing, "b"), aio_pika.exceptions.DeliveryError, "")
    many = await declare(at)
    await asyncio.gather(*(publish(at, many, str(n)) for n in range(1000)))
    equal((await at.declare_queue(many.name, passive=True)).declaration_result.message_count, 1000)


@test()
async def exchanges_route():
    at = await channel()
    source = await at.declare_exchange(f"x-{uuid.uuid4()}", ExchangeType.TOPIC, auto_delete=True)
    target = await at.declare_exchange(f"x-{uuid.uuid4()}", ExchangeType.HEADERS, auto_delete=True)
    queue = await declare(at)
    await queue.bind(target, arguments={"x-match": "any", "k": 1})
    await target.bind(source, "a.#")
    for key, headers in (("a.b", {"k": 1}), ("b", {"k": 1}), ("a", {"k": 2})):
        await source.publish(Message(key.encode(), headers=headers), key)
    equal((await queue.get()).body, b"a.b")
    equal(await queue.get(fail=False), None)


@test()
async def dead_letters_after_their_ttl():
    at = await channel()
    dead = await declare(at)
    queue = await declare(at, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name})
    await publish(at, queue, "a", expiration=0.1)
    worker = await Worker.start(dead.name)
    [letter] = await worker.take(1)
    death = letter.headers["x-death"][0]
    equal((death["reason"], death["count"], death["queue"], death["original-expiration"]), ("expired", 1, queue.name, "100"))


@test()
async def priorities():
    at = await channel()
    queue = await declare(at, {"x-max-priority": 5})
    for body, priority in (("a", 0), ("b", 3), ("c", 5), ("d", 3)):
        await publish(at, queue, body, priority=priority)
    equal(await (await Worker.start(queue.name)).bodies(4), ["c", "b", "d", "a"])


@test()
async def transactions():
    at = await channel(publisher_confirms=False)
    queue = await declare(at)
    async with at.transaction():
        await publish(at, queue, "a", "b")
    with contextlib.suppress(ValueError):
        async with at.transaction():
            await publish(at, queue, "c")
            raise ValueError
    equal((await at.declare_queue(queue.name, passive=True)).declaration_result.message_count, 2)


@test(seconds=60)
async def bodies_of_any_size_and_byte():
    at = await channel()
    queue = await declare(at)
    worker = await Worker.start(queue.name, no_ack=True)
    every = bytes(range(256))
    for body in (b"", b"\xce", every * 4096, every * 81920):
        await publish(at, queue, body)
        [message] = await worker.take(1)
        equal(message.body == body, True, f"a body of {len(body)} unchanged")


@test()
async def remote_procedure_calls():
    from aio_pika.patterns import RPC

    served = await (await connect()).channel()
    server = await RPC.create(served)
    name = f"rpc-{uuid.uuid4()}"

    async def double(*, n):
        return n * 2

    await server.register(name, double, auto_delete=True)
    client = await RPC.create(await (await connect()).channel())
    equal(await asyncio.gather(*(client.call(name, {"n": n}) for n in range(20))), [n * 2 for n in range(20)])
    await client.close()
    await server.close()


@test()
async def purge_and_delete_count():
    at = await channel()
    queue = await declare(at)
    await publish(at, queue, *"abc")
    equal((await queue.purge()).message_count, 3)
    await publish(at, queue, "d")
    equal((await queue.delete(if_empty=False)).message_count, 1)


@test("restart", seconds=90)
async def a_robust_connection_works_on_after_a_kill():
    connection = await aio_pika.connect_robust(URL, reconnect_interval=0.2)
    connections.append(connection)
    at = await connection.channel()
    queue = await declare(at, durable=True)
    messages = asyncio.Queue()
    await queue.consume(messages.put, no_ack=True)
    restarted = asyncio.Event()
    connection.reconnect_callbacks.add(lambda *_: restarted.set())
    await asyncio.to_thread(restart, "kill")
    await asyncio.wait_for(restarted.wait(), 30)
    other = await channel()
    await publish(other, queue, "after", delivery_mode=DeliveryMode.PERSISTENT)
    equal((await asyncio.wait_for(messages.get(), 30)).body, b"after")


@test("restart", seconds=90)
async def durable_messages_survive_a_clean_restart():
    at = await channel()
    queue, passing = await declare(at, durable=True), await declare(at)
    await publish(at, queue, *"abc", delivery_mode=DeliveryMode.PERSISTENT)
    await publish(at, queue, "transient")
    await asyncio.to_thread(restart, "term")
    worker = await Worker.start(queue.name)
    await publish(await channel(), queue, "last")
    equal(await worker.bodies(4), ["a", "b", "c", "last"])
    await refused((await channel()).get_queue(passing.name), aiormq.exceptions.ChannelNotFoundEntity, "no queue")


@test("restart", seconds=90)
async def confirmed_messages_survive_a_kill():
    at = await channel()
    queue = await declare(at, durable=True)
    confirmed = []
    kill_at = random.randrange(450)
    killing = []

    async def publish_one(n):
        with contextlib.suppress(Exception):  # lost with the connection, so not confirmed
            await publish(at, queue, str(n), delivery_mode=DeliveryMode.PERSISTENT)
            confirmed.append(n)
            if len(confirmed) == kill_at + 1:
                killing.append(asyncio.create_task(asyncio.to_thread(restart, "kill")))

    await asyncio.gather(*(publish_one(n) for n in range(500)))
    await killing[0]
    queue = await (await channel()).get_queue(queue.name)
    bodies = set()
    while message := await queue.get(no_ack=True, fail=False):
        bodies.add(int(message.body))
    equal(sorted(set(confirmed) - bodies), [], f"confirmed and missing after a kill near {kill_at}")


@test("restart", seconds=120)
async def a_kill_among_outstanding_confirms_leaves_one_message_of_each_key():
    at = await channel()
    present = await declare(at, {"x-message-deduplication": True}, durable=True)
    window = await declare(at, {"x-message-deduplication": True, "x-cache-size": 10_000}, durable=True)
    keys, kill_at = [str(n) for n in range(300)], random.randrange(550)
    confirmed, killing = [], []

    async def publish_all(at):
        async def publish_one(queue, key):
            properties = {"delivery_mode": DeliveryMode.PERSISTENT, "headers": {"x-deduplication-header": key}}
            with contextlib.suppress(Exception):  # lost with the connection
                await publish(at, queue, key, **properties)
                confirmed.append(key)
                if len(confirmed) == kill_at + 1:
                    killing.append(asyncio.create_task(asyncio.to_thread(restart, "kill")))

        await asyncio.gather(*(publish_one(queue, key) for key in keys for queue in (present, window)))

    async def bodies(queue):
        queue, found = await (await channel()).get_queue(queue.name), []
        while message := await queue.get(no_ack=True, fail=False):
            found.append(message.body.decode())
        return sorted(found, key=int)

    await publish_all(at)
    await killing[0]
    await publish_all(await channel())
    for queue in (present, window):
        equal(await bodies(queue), keys, f"of each key, after a kill near {kill_at}")
    await publish_all(await channel())
    equal([await bodies(present), await bodies(window)], [keys, []], "when all are gone")


if __name__ == "__main__":
    logging.disable()  # lost connections are what is tested
    run(around)
