import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;

/** The promises of the broker, held against the Java client: prints `ok NAME` or `FAIL NAME: why` a test. */
public class CompatTest {
    private static final String CONTROL_PORT = System.getenv("CONTROL_PORT");
    private static final boolean IS_LEVERET = System.getenv("LEVERET_PID") != null;
    private static final List<Connection> connections = new ArrayList<>();
    private static final List<String> queues = new ArrayList<>();
    private static final List<Process> processes = new ArrayList<>();

    private interface Body {
        void run() throws Exception;
    }

    /** Which brokers a test can run on: those the driver can restart have a control port. */
    private enum Needs { NOTHING, CONTROL, LEVERET }

    private record Test(String name, Needs needs, Body body) {}

    private static final List<Test> TESTS = List.of(
            new Test("round_robin_in_strict_order", Needs.NOTHING, CompatTest::roundRobin),
            new Test("prefetch_one_is_fair", Needs.NOTHING, CompatTest::fairDispatch),
            new Test("global_prefetch_is_the_channels", Needs.NOTHING, CompatTest::globalPrefetch),
            new Test("automatic_acknowledgement_forgets", Needs.NOTHING, CompatTest::automaticAcknowledgement),
            new Test("redelivery_when_the_channel_closes", Needs.NOTHING, () -> redelivery(worker -> worker.channel.close())),
            new Test("redelivery_when_the_connection_closes", Needs.NOTHING,
                    () -> redelivery(worker -> worker.channel.getConnection().close())),
            new Test("redelivery_when_the_connection_is_cut", Needs.NOTHING,
                    () -> redelivery(worker -> worker.channel.getConnection().abort(0))),
            new Test("redelivery_when_the_worker_is_killed", Needs.NOTHING, CompatTest::redeliveryOnKill),
            new Test("nack_and_reject", Needs.NOTHING, CompatTest::nackAndReject),
            new Test("recover_redelivers", Needs.NOTHING, CompatTest::recover),
            new Test("unknown_delivery_tag_and_another_channel", Needs.NOTHING, CompatTest::unknownDeliveryTag),
            new Test("acknowledgement_timeout", Needs.LEVERET, CompatTest::acknowledgementTimeout),
            new Test("a_worker_keeps_its_message_for_as_long_as_it_says", Needs.LEVERET, CompatTest::extendedLease),
            new Test("redeclaring_differently", Needs.NOTHING, CompatTest::redeclare),
            new Test("missing_and_locked_queues", Needs.NOTHING, CompatTest::missingAndLocked),
            new Test("exchange_types_route", Needs.NOTHING, CompatTest::exchangeTypes),
            new Test("mandatory_messages_return", Needs.NOTHING, CompatTest::mandatory),
            new Test("consumers_hear_of_their_queues_end", Needs.NOTHING, CompatTest::consumerCancel),
            new Test("get_purge_and_delete_count", Needs.NOTHING, CompatTest::counts),
            new Test("dead_letters_tell_their_death", Needs.NOTHING, CompatTest::deadLetters),
            new Test("length_limits", Needs.NOTHING, CompatTest::lengthLimits),
            new Test("priorities", Needs.NOTHING, CompatTest::priorities),
            new Test("transactions", Needs.NOTHING, CompatTest::transactions),
            new Test("bodies_of_any_size_and_byte", Needs.NOTHING, CompatTest::bodies),
            new Test("properties_come_back_whole", Needs.NOTHING, CompatTest::properties),
            new Test("direct_reply_to", Needs.NOTHING, CompatTest::directReplyTo),
            new Test("durable_after_a_clean_restart", Needs.CONTROL, () -> durable("term")),
            new Test("durable_after_a_kill", Needs.CONTROL, () -> durable("kill")),
            new Test("publishers_are_blocked_while_disk_space_is_short", Needs.CONTROL, CompatTest::blocked),
            new Test("confirmed_messages_survive_a_kill", Needs.CONTROL, CompatTest::confirmedSurvive));

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 2 && arguments[0].equals("--worker")) {
            holdMessages(arguments[1]);
            return;
        }
        int status = 0;
        for (Test test : TESTS) {
            if (arguments.length > 0 && !Arrays.asList(arguments).contains(test.name)) continue;
            if (test.needs == Needs.CONTROL && CONTROL_PORT == null || test.needs == Needs.LEVERET && !IS_LEVERET) continue;
            var outcome = new CompletableFuture<Void>();
            var thread = new Thread(() -> {
                try {
                    test.body.run();
                    outcome.complete(null);
                } catch (Throwable why) {
                    outcome.completeExceptionally(why);
                }
            });
            thread.setDaemon(true);
            thread.start();
            try {
                outcome.get(60, TimeUnit.SECONDS);
                System.out.println("ok " + test.name);
            } catch (ExecutionException | TimeoutException error) {
                status = 1;
                Throwable why = error instanceof ExecutionException ? error.getCause() : error;
                String cause = why.getCause() == null ? "" : " because of " + why.getCause().getMessage();
                System.out.println("FAIL " + test.name + ": " + (why + cause).replaceAll("\\s+", " ") + " (line " + line(why) + ")");
            }
            clean();
        }
        System.exit(status);
    }

    /** The line of the test itself: the outermost one of this class that is not a lambda. */
    private static int line(Throwable why) {
        return Arrays.stream(why.getStackTrace())
                .filter(frame -> frame.getClassName().equals("CompatTest") && !frame.getMethodName().startsWith("lambda"))
                .mapToInt(StackTraceElement::getLineNumber).reduce(0, (inner, outer) -> outer);
    }

    private static void clean() throws Exception {
        processes.forEach(Process::destroyForcibly);
        processes.clear();
        connections.forEach(connection -> connection.abort(2000));
        connections.clear();
        if (queues.isEmpty()) return;
        try (var connection = factory().newConnection(); var channel = connection.createChannel()) {
            for (String queue : queues) channel.queueDelete(queue);
        }
        queues.clear();
    }

    private static ConnectionFactory factory() {
        var factory = new ConnectionFactory();
        factory.setHost(System.getenv("AMQP_HOST"));
        factory.setPort(Integer.parseInt(System.getenv("AMQP_PORT")));
        factory.setAutomaticRecoveryEnabled(false);
        return factory;
    }

    private static Connection connect() throws Exception {
        var connection = factory().newConnection();
        connections.add(connection);
        return connection;
    }

    /** A channel on a connection of its own. */
    private static Channel open() throws Exception {
        return connect().createChannel();
    }

    private static String fresh(String kind) {
        return kind + "-" + UUID.randomUUID();
    }

    private static String declare(Channel channel, boolean durable, Map<String, Object> arguments) throws IOException {
        String queue = channel.queueDeclare(fresh("queue"), durable, false, false, arguments).getQueue();
        queues.add(queue);
        return queue;
    }

    private static String declare(Channel channel) throws IOException {
        return declare(channel, false, null);
    }

    private static void send(Channel channel, String queue, BasicProperties properties, String... bodies) throws IOException {
        for (String body : bodies) channel.basicPublish("", queue, properties, body.getBytes(StandardCharsets.UTF_8));
    }

    private static void equal(Object got, Object wanted) {
        if (!Objects.deepEquals(got, wanted)) throw new AssertionError("got " + got + ", expected " + wanted);
    }

    /** Asks until the queue has so many ready messages: RabbitMQ answers ahead of what it has yet to do. */
    private static void becomesReady(Channel channel, String queue, long wanted) throws IOException {
        while (channel.messageCount(queue) != wanted);
    }

    private static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    /** A consumer that keeps its deliveries. */
    private static final class Worker extends DefaultConsumer {
        final Channel channel;
        final BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
        final CompletableFuture<String> cancelled = new CompletableFuture<>();

        Worker(Channel channel, String queue, boolean autoAck) throws IOException {
            super(channel);
            this.channel = channel;
            channel.basicConsume(queue, autoAck, this);
        }

        @Override
        public void handleDelivery(String tag, Envelope envelope, BasicProperties properties, byte[] body) {
            deliveries.add(new Delivery(envelope, properties, body));
        }

        @Override
        public void handleCancel(String tag) {
            cancelled.complete(tag);
        }

        Delivery next() throws InterruptedException {
            Delivery delivery = deliveries.poll(10, TimeUnit.SECONDS);
            if (delivery == null) throw new AssertionError("no delivery within 10 s");
            return delivery;
        }

        /** The next bodies, those redelivered with a star. */
        List<String> take(int count) throws InterruptedException {
            var taken = new ArrayList<String>();
            while (taken.size() < count) {
                Delivery delivery = next();
                taken.add(text(delivery.getBody()) + (delivery.getEnvelope().isRedeliver() ? "*" : ""));
            }
            return taken;
        }
    }

    private static CompletableFuture<ShutdownSignalException> closing(Channel channel) {
        var closed = new CompletableFuture<ShutdownSignalException>();
        channel.addShutdownListener(closed::complete);
        return closed;
    }

    /** The broker closes the channel, on this action or after it, with this code and text. */
    private static void refused(Channel channel, Body action, int code, String reason) throws Exception {
        var closed = closing(channel);
        try {
            action.run();
        } catch (IOException | ShutdownSignalException expected) {
            // the same reason comes from the listener
        }
        var method = (AMQP.Channel.Close) closed.get(10, TimeUnit.SECONDS).getReason();
        equal(method.getReplyCode(), code);
        equal(method.getReplyText(), reason.length() <= 255 ? reason : reason.substring(0, 252) + "...");
    }

    private static void restart(String how) throws IOException {
        askDriver("restart " + how);
    }

    /** Publishers are blocked from now on while less is free. */
    private static void limitFreeDisk(String size) throws IOException {
        askDriver("ctl set_disk_free_limit " + size);
    }

    private static void askDriver(String request) throws IOException {
        try (var control = new Socket("127.0.0.1", Integer.parseInt(CONTROL_PORT))) {
            control.getOutputStream().write((request + "\n").getBytes(StandardCharsets.UTF_8));
            equal(text(control.getInputStream().readAllBytes()).strip(), "ok");
        }
    }

    /** The worker process: prints each body it gets and acknowledges none. */
    private static void holdMessages(String queue) throws Exception {
        var worker = new Worker(open(), queue, false);
        while (true) System.out.println(text(worker.deliveries.take().getBody()));
    }

    private static void roundRobin() throws Exception {
        var channel = open();
        String queue = declare(channel);
        var workers = List.of(new Worker(open(), queue, false), new Worker(open(), queue, false), new Worker(open(), queue, false));
        for (int n = 0; n < 30; n++) send(channel, queue, null, String.valueOf(n));
        for (int n = 0; n < 30; n++) equal(text(workers.get(n % 3).next().getBody()), String.valueOf(n));
    }

    private static void fairDispatch() throws Exception {
        Channel channel = open(), slow = open(), fast = open();
        String queue = declare(channel);
        slow.basicQos(1);
        fast.basicQos(1);
        Worker slowly = new Worker(slow, queue, false), quickly = new Worker(fast, queue, false);
        send(channel, queue, null, "0", "1", "2", "3", "4", "5");
        equal(slowly.take(1), List.of("0"));
        for (int n = 1; n < 6; n++) {
            Delivery delivery = quickly.next();
            equal(text(delivery.getBody()), String.valueOf(n));
            fast.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
        }
    }

    private static void globalPrefetch() throws Exception {
        var channel = open();
        String queue = declare(channel);
        channel.basicQos(3, true);
        var worker = new Worker(channel, queue, false);
        send(channel, queue, null, "0", "1", "2", "3", "4", "5");
        worker.take(3);
        becomesReady(channel, queue, 3);
        channel.basicQos(5, true);
        worker.take(2);
        becomesReady(channel, queue, 1);
        channel.basicAck(0, true);
        worker.take(1);
    }

    private static void automaticAcknowledgement() throws Exception {
        Channel channel = open(), worker = open();
        String queue = declare(channel);
        send(channel, queue, null, "a", "b");
        new Worker(worker, queue, true).take(2);
        worker.close();
        equal(channel.messageCount(queue), 0L);
    }

    private interface End {
        void of(Worker worker) throws Exception;
    }

    private static void redelivery(End end) throws Exception {
        var channel = open();
        String queue = declare(channel);
        send(channel, queue, null, "0", "1", "2", "3", "4");
        var holder = new Worker(open(), queue, false);
        equal(holder.take(5), List.of("0", "1", "2", "3", "4"));
        var waiting = new Worker(open(), queue, false);
        end.of(holder);
        equal(waiting.take(5), List.of("0*", "1*", "2*", "3*", "4*"));
    }

    private static void redeliveryOnKill() throws Exception {
        var channel = open();
        String queue = declare(channel);
        send(channel, queue, null, "0", "1", "2");
        var process = new ProcessBuilder(ProcessHandle.current().info().command().orElseThrow(), "-XX:TieredStopAtLevel=1",
                "-cp", System.getProperty("java.class.path"), "CompatTest", "--worker", queue).start();
        processes.add(process);
        var output = new BufferedReader(new InputStreamReader(process.getInputStream()));
        for (String body : List.of("0", "1", "2")) equal(output.readLine(), body);
        var waiting = new Worker(channel, queue, false);
        process.destroyForcibly();
        equal(waiting.take(3), List.of("0*", "1*", "2*"));
    }

    private static void nackAndReject() throws Exception {
        var channel = open();
        String queue = declare(channel);
        send(channel, queue, null, "a", "b", "c");
        var tags = new long[3];
        for (int n = 0; n < 3; n++) tags[n] = channel.basicGet(queue, false).getEnvelope().getDeliveryTag();
        channel.basicNack(tags[1], false, true);
        channel.basicReject(tags[0], true);
        channel.basicReject(tags[2], false);
        for (String body : List.of("a", "b")) {
            var again = channel.basicGet(queue, false);
            equal(text(again.getBody()), body);
            equal(again.getEnvelope().isRedeliver(), true);
        }
        equal(channel.basicGet(queue, false), null);
    }

    private static void recover() throws Exception {
        var channel = open();
        String queue = declare(channel);
        send(channel, queue, null, "a", "b");
        var worker = new Worker(channel, queue, false);
        worker.take(2);
        channel.basicRecover(true);
        equal(worker.take(2), List.of("a*", "b*"));
    }

    private static void unknownDeliveryTag() throws Exception {
        var connection = connect();
        Channel owner = connection.createChannel(), other = connection.createChannel();
        String queue = declare(owner);
        send(owner, queue, null, "a");
        var worker = new Worker(owner, queue, false);
        long tag = worker.next().getEnvelope().getDeliveryTag();
        refused(other, () -> other.basicAck(tag, false), 406, "PRECONDITION_FAILED - unknown delivery tag " + tag);
        owner.basicAck(tag, false);
        send(owner, queue, null, "b");
        equal(worker.take(1), List.of("b"));
        refused(owner, () -> owner.basicAck(tag, false), 406, "PRECONDITION_FAILED - unknown delivery tag " + tag);
    }

    private static void acknowledgementTimeout() throws Exception {
        Channel channel = open(), late = open();
        String queue = declare(channel, false, Map.of("x-consumer-timeout", 1000));
        send(channel, queue, null, "a");
        refused(late, () -> new Worker(late, queue, false).take(1), 406,
                "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms. This "
                + "timeout value can be configured, see consumers doc guide to learn more");
        equal(new Worker(channel, queue, true).take(1), List.of("a*"));
    }

    private static void extendedLease() throws Exception {
        Channel channel = open(), worker = open();
        Map<String, Object> arguments = Map.of("x-consumer-timeout", 1000, "x-consumer-timeout-action", "return");
        String queue = declare(channel, false, arguments);
        send(channel, queue, null, "a", "b");
        var consumer = new Worker(worker, queue, false);
        Delivery first = consumer.next();
        equal(consumer.take(1), List.of("b"));
        long tag = first.getEnvelope().getDeliveryTag();
        extend(worker, Map.of("x-delivery-tag", tag, "x-lease-ms", 600_000));
        equal(consumer.take(1), List.of("b*"));
        worker.basicAck(tag, false);
        var returned = new CompletableFuture<String>();
        worker.addReturnListener((code, reason, exchange, key, properties, body) -> returned.complete(code + " " + reason + " " + key));
        extend(worker, Map.of("x-delivery-tag", tag));
        equal(returned.get(10, TimeUnit.SECONDS), "312 NO_ROUTE amq.leveret.lease");
        refused(worker, () -> extend(worker, Map.of("x-delivery-tag", tag, "x-lease-ms", 0)), 406,
                "PRECONDITION_FAILED - invalid lease request: header 'x-lease-ms' must be a positive integer");
    }

    private static void extend(Channel channel, Map<String, Object> headers) throws IOException {
        var properties = new BasicProperties.Builder().headers(headers).build();
        channel.basicPublish("", "amq.leveret.lease", true, properties, new byte[0]);
    }

    private static void redeclare() throws Exception {
        var channel = open();
        String queue = declare(channel, true, null);
        refused(channel, () -> channel.queueDeclare(queue, false, false, false, null), 406,
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '" + queue
                + "' in vhost '/': received 'false' but current is 'true'");
    }

    private static void missingAndLocked() throws Exception {
        Channel channel = open(), missing = open(), locked = open();
        refused(missing, () -> missing.queueDeclarePassive("nope"), 404, "NOT_FOUND - no queue 'nope' in vhost '/'");
        String queue = channel.queueDeclare().getQueue();
        equal(queue.startsWith("amq.gen-"), true);
        refused(locked, () -> locked.queueDeclarePassive(queue), 405,
                "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + queue + "' in vhost '/'. It could be "
                + "originally declared on another connection or the exclusive property value does not match that of the "
                + "original declaration.");
        channel.getConnection().close();
        var gone = open();
        refused(gone, () -> gone.queueDeclarePassive(queue), 404, "NOT_FOUND - no queue '" + queue + "' in vhost '/'");
    }

    private static void exchangeTypes() throws Exception {
        var channel = open();
        String source = fresh("topic"), target = fresh("headers");
        channel.exchangeDeclare(source, "topic", false, true, null);
        channel.exchangeDeclare(target, "headers", false, true, null);
        String queue = declare(channel);
        channel.exchangeBind(target, source, "a.*");
        channel.queueBind(queue, target, "", Map.of("x-match", "all", "k", "v"));
        for (var trial : List.of(List.of("a.b", "v"), List.of("a.b", "w"), List.of("a", "v"))) {
            var properties = new BasicProperties.Builder().headers(Map.of("k", trial.get(1))).build();
            channel.basicPublish(source, trial.get(0), properties, trial.toString().getBytes(StandardCharsets.UTF_8));
        }
        equal(text(channel.basicGet(queue, true).getBody()), "[a.b, v]");
        equal(channel.basicGet(queue, true), null);
    }

    private static void mandatory() throws Exception {
        var channel = open();
        channel.confirmSelect();
        var returned = new CompletableFuture<String>();
        channel.addReturnListener((code, reason, exchange, key, properties, body) -> returned.complete(code + " " + reason + " " + text(body)));
        channel.basicPublish("amq.direct", "nowhere", true, null, "a".getBytes(StandardCharsets.UTF_8));
        channel.waitForConfirmsOrDie(10_000);
        equal(returned.getNow("returned after the confirm"), "312 NO_ROUTE a");
    }

    private static void consumerCancel() throws Exception {
        var channel = open();
        String queue = declare(channel);
        var worker = new Worker(open(), queue, false);
        channel.queueDelete(queue);
        equal(worker.cancelled.get(10, TimeUnit.SECONDS), worker.getConsumerTag());
    }

    private static void counts() throws Exception {
        var channel = open();
        String queue = declare(channel);
        equal(channel.basicGet(queue, true), null);
        send(channel, queue, null, "a", "b", "c", "d");
        equal(channel.basicGet(queue, false).getMessageCount(), 3);
        equal(channel.queuePurge(queue).getMessageCount(), 3);
        send(channel, queue, null, "e");
        equal(channel.queueDelete(queue).getMessageCount(), 1);
    }

    private static void deadLetters() throws Exception {
        var channel = open();
        String dead = declare(channel);
        String queue = declare(channel, false,
                Map.of("x-message-ttl", 100, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
        send(channel, queue, null, "a");
        var headers = new Worker(channel, dead, true).next().getProperties().getHeaders();
        @SuppressWarnings("unchecked")
        var death = new HashMap<>(((List<Map<String, Object>>) headers.get("x-death")).get(0));
        equal(death.remove("time") instanceof Date, true);
        death.replaceAll((key, value) -> value instanceof Long ? value : value.toString());
        equal(death, Map.of("count", 1L, "reason", "expired", "queue", queue, "exchange", "", "routing-keys", "[" + queue + "]"));
    }

    private static void lengthLimits() throws Exception {
        var channel = open();
        String dropping = declare(channel, false, Map.of("x-max-length", 2));
        send(channel, dropping, null, "a", "b", "c");
        equal(text(channel.basicGet(dropping, true).getBody()), "b");
        channel.confirmSelect();
        String refusing = declare(channel, false, Map.of("x-max-length", 1, "x-overflow", "reject-publish"));
        send(channel, refusing, null, "a");
        equal(channel.waitForConfirms(10_000), true);
        send(channel, refusing, null, "b");
        equal(channel.waitForConfirms(10_000), false);
    }

    private static void priorities() throws Exception {
        var channel = open();
        String queue = declare(channel, false, Map.of("x-max-priority", 5));
        String[] bodies = {"a", "b", "c", "d"};
        int[] priorities = {0, 3, 9, 3};
        for (int n = 0; n < 4; n++) send(channel, queue, new BasicProperties.Builder().priority(priorities[n]).build(), bodies[n]);
        equal(new Worker(channel, queue, true).take(4), List.of("c", "b", "d", "a"));
    }

    private static void transactions() throws Exception {
        Channel channel = open(), other = open();
        String queue = declare(channel);
        channel.txSelect();
        send(channel, queue, null, "a", "b");
        equal(other.messageCount(queue), 0L);
        channel.txCommit();
        equal(other.messageCount(queue), 2L);
        send(channel, queue, null, "c");
        channel.txRollback();
        channel.basicAck(channel.basicGet(queue, false).getEnvelope().getDeliveryTag(), false);
        channel.txCommit();
        channel.close();
        equal(other.messageCount(queue), 1L);
    }

    private static void bodies() throws Exception {
        var channel = open();
        String queue = declare(channel);
        var worker = new Worker(channel, queue, true);
        for (int size : new int[] {0, 1, 256, 1 << 20, 20 << 20}) {
            var body = new byte[size];
            for (int n = 0; n < size; n++) body[n] = (byte) (n % 256 + 206);
            channel.basicPublish("", queue, null, body);
            equal(Arrays.equals(worker.next().getBody(), body), true);
        }
    }

    private static void properties() throws Exception {
        var channel = open();
        String queue = declare(channel);
        var headers = new HashMap<String, Object>();
        headers.put("bool", true);
        headers.put("byte", (byte) -3);
        headers.put("short", (short) -300);
        headers.put("int", -70_000);
        headers.put("long", 1L << 40);
        headers.put("float", 1.5f);
        headers.put("double", 2.25);
        headers.put("decimal", new BigDecimal("3.14"));
        headers.put("time", new Date(1_700_000_000_000L));
        headers.put("nothing", null);
        headers.put("list", List.of(1, 2L, List.of(true)));
        headers.put("table", Map.of("deep", Map.of("deeper", 1)));
        var sent = new BasicProperties("text/plain", "utf-8", headers, 2, 9, "c", "r", "60000", "m", new Date(1_700_000_000_000L),
                "t", "guest", "a", "k");
        send(channel, queue, sent, "a");
        var got = channel.basicGet(queue, true).getProps();
        equal(got.getHeaders(), headers);
        equal(got.builder().headers(null).build().toString(), sent.builder().headers(null).build().toString());
    }

    private static void directReplyTo() throws Exception {
        Channel client = open(), server = open();
        String queue = declare(server);
        var replies = new Worker(client, "amq.rabbitmq.reply-to", true);
        send(client, queue, new BasicProperties.Builder().replyTo("amq.rabbitmq.reply-to").correlationId("1").build(), "ping");
        var request = new Worker(server, queue, true).next().getProperties();
        send(server, request.getReplyTo(), new BasicProperties.Builder().correlationId(request.getCorrelationId()).build(), "pong");
        Delivery reply = replies.next();
        equal(text(reply.getBody()) + reply.getProperties().getCorrelationId(), "pong1");
    }

    private static void durable(String how) throws Exception {
        var channel = open();
        String queue = declare(channel, true, null), passing = declare(channel);
        channel.confirmSelect();
        send(channel, queue, MessageProperties.MINIMAL_PERSISTENT_BASIC, "a", "b", "c");
        send(channel, queue, null, "transient");
        channel.waitForConfirmsOrDie(10_000);
        restart(how);
        var again = open();
        var worker = new Worker(again, queue, true);
        var bodies = new ArrayList<String>();
        for (Delivery delivery; bodies.size() < 3; bodies.add(text(delivery.getBody()))) delivery = worker.next();
        send(again, queue, null, "last");
        bodies.addAll(worker.take(1));
        equal(bodies, List.of("a", "b", "c", "last"));
        refused(again, () -> again.queueDeclarePassive(passing), 404, "NOT_FOUND - no queue '" + passing + "' in vhost '/'");
    }

    private static void blocked() throws Exception {
        var connection = connect();
        var reason = new CompletableFuture<String>();
        var unblocked = new CompletableFuture<Void>();
        connection.addBlockedListener(reason::complete, () -> unblocked.complete(null));
        var channel = connection.createChannel();
        String queue = declare(channel, true, null);
        channel.confirmSelect();
        send(channel, queue, MessageProperties.PERSISTENT_BASIC, "a", "b");
        channel.waitForConfirmsOrDie(10_000);
        limitFreeDisk("1000TB");
        Worker worker;
        try {
            worker = new Worker(open(), queue, false);
            equal(worker.take(2), List.of("a", "b"));
            worker.channel.basicAck(2, true);
            send(channel, queue, MessageProperties.PERSISTENT_BASIC, "c");
            equal(reason.get(10, TimeUnit.SECONDS), "low on disk");
            send(channel, queue, MessageProperties.PERSISTENT_BASIC, "d", "e");
            equal(worker.channel.messageCount(queue), 0L);
            equal(unblocked.isDone(), false);
        } finally {
            limitFreeDisk("50MB");
        }
        unblocked.get(10, TimeUnit.SECONDS);
        channel.waitForConfirmsOrDie(10_000);
        equal(worker.take(3), List.of("c", "d", "e"));
    }

    private static void confirmedSurvive() throws Exception {
        var channel = open();
        String queue = declare(channel, true, null);
        channel.confirmSelect();
        var confirmed = new AtomicLong();
        channel.addConfirmListener((tag, multiple) -> confirmed.accumulateAndGet(tag, Math::max), (tag, multiple) -> {});
        int killAt = new Random().nextInt(500);
        var killed = new CompletableFuture<Void>();
        try {
            for (int n = 0; n < 2000; n++) {
                if (n == killAt) killed.completeAsync(() -> {
                    try {
                        restart("kill");
                        return null;
                    } catch (IOException error) {
                        throw new IllegalStateException(error);
                    }
                });
                send(channel, queue, MessageProperties.MINIMAL_PERSISTENT_BASIC, String.valueOf(n));
            }
        } catch (IOException | ShutdownSignalException lost) {
            // with the server
        }
        killed.get(60, TimeUnit.SECONDS);
        var again = open();
        long here = 0;
        for (var got = again.basicGet(queue, true); got != null; got = again.basicGet(queue, true)) {
            equal(text(got.getBody()), String.valueOf(here));
            here++;
        }
        if (here < confirmed.get()) {
            throw new AssertionError(confirmed + " confirmed, " + here + " there after a kill near " + killAt);
        }
    }
}
