<?php
// The promises of the broker, held against php-amqplib: prints `ok NAME` or `FAIL NAME: why` a test.
declare(strict_types=1);

require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

error_reporting(E_ALL & ~E_DEPRECATED);

/** Which brokers a test can run on: those the driver can restart have a control port. */
enum Needs { case Nothing; case Control; case Leveret; }

$connections = [];
$queues = [];

function open(): AMQPChannel
{
    global $connections;
    $connections[] = $connection = new AMQPStreamConnection(getenv('AMQP_HOST'), getenv('AMQP_PORT'), 'guest', 'guest');
    return $connection->channel();
}

function declareQueue(AMQPChannel $channel, array $arguments = [], bool $durable = false): string
{
    global $queues;
    $queues[] = $queue = 'queue-' . bin2hex(random_bytes(12));
    $channel->queue_declare($queue, false, $durable, false, false, false, new AMQPTable($arguments));
    return $queue;
}

function send(AMQPChannel $channel, string $queue, array $bodies, array $properties = []): void
{
    foreach ($bodies as $body) {
        $channel->basic_publish(new AMQPMessage($body, $properties), '', $queue);
    }
}

/** A consumer that keeps its deliveries. */
class Worker
{
    public array $deliveries = [];
    public string $tag;

    public function __construct(public AMQPChannel $channel, string $queue, int $prefetch = 0, private bool $acks = false)
    {
        if ($prefetch) {
            $channel->basic_qos(0, $prefetch, false);
        }
        $this->tag = $channel->basic_consume($queue, '', false, false, false, false, $this->receive(...));
    }

    private function receive(AMQPMessage $message): void
    {
        $this->deliveries[] = $message;
        if ($this->acks) {
            $message->ack();
        }
    }

    /** The bodies as soon as there are so many; those that came before have a star. */
    public function bodies(int $wanted): array
    {
        while (count($this->deliveries) < $wanted) {
            $this->channel->wait(null, false, 10);
        }
        return array_map(fn ($message) => $message->getBody() . ($message->isRedelivered() ? '*' : ''), $this->deliveries);
    }
}

function equal(mixed $got, mixed $wanted): void
{
    if ($got !== $wanted) {
        throw new Exception('got ' . json_encode($got) . ', expected ' . json_encode($wanted));
    }
}

function refused(callable $action, int $code, string $text): void
{
    try {
        $action();
    } catch (AMQPProtocolChannelException $why) {
        equal([$why->amqp_reply_code, $why->amqp_reply_text], [$code, $text]);
        return;
    }
    throw new Exception("not refused; expected $code $text");
}

function restart(string $how): void
{
    $control = stream_socket_client('tcp://127.0.0.1:' . getenv('CONTROL_PORT'));
    fwrite($control, "restart $how\n");
    equal(stream_get_contents($control), "ok\n");
}

$tests = [
    ['prefetch_one_is_fair', Needs::Nothing, function () {
        $channel = open();
        $queue = declareQueue($channel);
        $slow = new Worker(open(), $queue, 1);
        $fast = new Worker(open(), $queue, 1, true);
        send($channel, $queue, str_split('abcdefghij'));
        equal([...$slow->bodies(1), ...$fast->bodies(9)], str_split('abcdefghij'));
    }],
    ['redelivery_when_the_connection_closes', Needs::Nothing, function () {
        $channel = open();
        $queue = declareQueue($channel);
        send($channel, $queue, ['a', 'b']);
        $first = new Worker(open(), $queue);
        equal($first->bodies(2), ['a', 'b']);
        $first->channel->getConnection()->close();
        equal((new Worker($channel, $queue))->bodies(2), ['a*', 'b*']);
    }],
    ['refusals_have_rabbitmqs_words', Needs::Nothing, function () {
        $queue = declareQueue(open(), [], true);
        refused(fn () => open()->queue_declare('nope', true), 404, "NOT_FOUND - no queue 'nope' in vhost '/'");
        refused(fn () => open()->queue_declare($queue, false, false, false, false), 406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '$queue' in vhost '/': received 'false' but current is 'true'");
    }],
    ['dead_letters_tell_their_death', Needs::Nothing, function () {
        $channel = open();
        $dead = declareQueue($channel);
        $queue = declareQueue($channel, ['x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => $dead]);
        send($channel, $queue, ['a']);
        $channel->basic_get($queue)->nack();
        $letters = new Worker($channel, $dead);
        $letters->bodies(1);
        $death = $letters->deliveries[0]->get('application_headers')->getNativeData()['x-death'][0];
        equal([$death['reason'], $death['queue'], $death['count']], ['rejected', $queue, 1]);
    }],
    ['a_worker_keeps_its_message_for_as_long_as_it_says', Needs::Leveret, function () {
        $channel = open();
        $queue = declareQueue($channel, ['x-consumer-timeout' => 1000, 'x-consumer-timeout-action' => 'return']);
        send($channel, $queue, ['a', 'b']);
        $worker = new Worker(open(), $queue);
        equal($worker->bodies(2), ['a', 'b']);
        $extend = function (array $headers) use ($worker) {
            $request = new AMQPMessage('', ['application_headers' => new AMQPTable($headers)]);
            $worker->channel->basic_publish($request, '', 'amq.leveret.lease', true);
        };
        $extend(['x-delivery-tag' => $worker->deliveries[0]->getDeliveryTag(), 'x-lease-ms' => 600_000]);
        equal($worker->bodies(3), ['a', 'b', 'b*']);
        $worker->deliveries[0]->ack();
        $returned = [];
        $worker->channel->set_return_listener(function (...$back) use (&$returned) {
            $returned = array_slice($back, 0, 4);
        });
        $extend(['x-delivery-tag' => 1]);
        while (!$returned) {
            $worker->channel->wait(null, false, 10);
        }
        equal($returned, [312, 'NO_ROUTE', '', 'amq.leveret.lease']);
        $extend(['x-delivery-tag' => 'first']);
        refused(fn () => $worker->channel->basic_qos(0, 1, false), 406,
            "PRECONDITION_FAILED - invalid lease request: header 'x-delivery-tag' must be a positive integer");
    }],
    ...array_map(fn ($how) => ["confirmed_messages_are_there_after_a_restart_by_$how", Needs::Control, function () use ($how) {
        $channel = open();
        $queue = declareQueue($channel, [], true);
        $channel->confirm_select();
        send($channel, $queue, ['a', 'b', 'c'], ['delivery_mode' => 2]);
        $channel->wait_for_pending_acks(10);
        restart($how);
        $bodies = (new Worker(open(), $queue))->bodies(3);
        // After a kill anything may have been delivered before.
        equal($bodies, $how === 'kill' ? ['a*', 'b*', 'c*'] : ['a', 'b', 'c']);
    }], ['term', 'kill']),
];

$status = 0;
foreach ($tests as [$name, $needs, $body]) {
    if ($argc > 1 && !in_array($name, $argv, true)) continue;
    if ($needs === Needs::Control && !getenv('CONTROL_PORT') || $needs === Needs::Leveret && !getenv('LEVERET_PID')) continue;
    try {
        $body();
        echo "ok $name\n";
    } catch (Throwable $why) {
        $status = 1;
        $text = preg_replace('/\s+/', ' ', get_class($why) . ': ' . $why->getMessage());
        $lines = array_column(array_filter($why->getTrace(), fn ($call) => ($call['file'] ?? '') === __FILE__), 'line');
        echo "FAIL $name: $text (lines " . implode(', ', $lines) . ")\n";
    }
    foreach ($connections as $connection) {
        try {
            $connection->close();
        } catch (Throwable) {
            // It was closed in the test, or lost with the server.
        }
    }
    $connections = [];
    $channel = open();
    foreach ($queues as $queue) {
        $channel->queue_delete($queue);
    }
    $queues = [];
}
exit($status);
