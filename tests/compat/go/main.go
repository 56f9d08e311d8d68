// The promises of the broker, held against amqp091-go: prints `ok NAME` or `FAIL NAME: why` a test.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand"
	"net"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var (
	url         = fmt.Sprintf("amqp://guest:guest@%s:%s/", os.Getenv("AMQP_HOST"), os.Getenv("AMQP_PORT"))
	controlPort = os.Getenv("CONTROL_PORT")
	isLeveret   = os.Getenv("LEVERET_PID") != ""
)

// needs says on which brokers a test can run.
type needs int

const (
	anyBroker   needs = iota
	control           // the driver's control port
	onlyLeveret       // what holds for Leveret alone
)

var tests = []struct {
	name  string
	needs needs
	body  func(*world)
}{
	{"round_robin_in_strict_order", anyBroker, roundRobin},
	{"prefetch_one_is_fair", anyBroker, fairDispatch},
	{"global_prefetch_is_the_channels_and_changes_at_once", anyBroker, globalPrefetch},
	{"manual_and_automatic_acknowledgement", anyBroker, acknowledgement},
	{"redelivery_when_the_channel_closes", anyBroker, redeliveryOnChannelClose},
	{"redelivery_when_the_connection_closes", anyBroker, redeliveryOnConnectionClose},
	{"redelivery_when_the_worker_is_killed", anyBroker, redeliveryOnKill},
	{"nack_and_reject", anyBroker, nackAndReject},
	{"unknown_delivery_tag", anyBroker, unknownDeliveryTag},
	{"ack_on_another_channel", anyBroker, ackOnAnotherChannel},
	{"acknowledgement_timeout", onlyLeveret, acknowledgementTimeout},
	{"a_worker_keeps_its_message_for_as_long_as_it_says", onlyLeveret, extendedLease},
	{"redeclaring_differently", anyBroker, redeclare},
	{"consumer_tag_twice", anyBroker, consumerTagTwice},
	{"immediate_is_not_implemented", anyBroker, immediate},
	{"exclusive_auto_delete_and_server_named_queues", anyBroker, passingQueues},
	{"exchange_types_route", anyBroker, exchangeTypes},
	{"mandatory_messages_return", anyBroker, mandatory},
	{"consumers_hear_of_their_queues_end", anyBroker, consumerCancel},
	{"get_purge_and_delete_count", anyBroker, counts},
	{"ttl_dead_letters_and_x_death", anyBroker, deadLetters},
	{"length_limits", anyBroker, lengthLimits},
	{"priorities", anyBroker, priorities},
	{"transactions", anyBroker, transactions},
	{"bodies_of_any_size_and_byte", anyBroker, bodies},
	{"properties_come_back_whole", anyBroker, properties},
	{"direct_reply_to", anyBroker, directReplyTo},
	{"heartbeats_keep_an_idle_connection", anyBroker, heartbeats},
	{"durable_after_a_clean_restart", control, func(w *world) { durable(w, "term") }},
	{"durable_after_a_kill", control, func(w *world) { durable(w, "kill") }},
	{"publishers_are_blocked_while_disk_space_is_short", control, blocked},
	{"confirmed_messages_survive_a_kill", control, confirmedSurvive},
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "--worker" {
		holdMessages(os.Args[2])
		return
	}
	status := 0
	for _, test := range tests {
		if len(os.Args) > 1 && !strings.Contains(strings.Join(os.Args[1:], " "), test.name) {
			continue
		}
		if test.needs == control && controlPort == "" || test.needs == onlyLeveret && !isLeveret {
			continue
		}
		w := &world{}
		outcome := make(chan error, 1)
		go func() {
			defer func() {
				if why := recover(); why != nil {
					outcome <- fmt.Errorf("%v (line %d)", why, testLine())
				}
			}()
			test.body(w)
			outcome <- nil
		}()
		var err error
		select {
		case err = <-outcome:
		case <-time.After(60 * time.Second):
			err = errors.New("not done after 60 s")
		}
		if err != nil {
			status = 1
			fmt.Printf("FAIL %s: %s\n", test.name, strings.Join(strings.Fields(err.Error()), " "))
		} else {
			fmt.Printf("ok %s\n", test.name)
		}
		w.clean()
	}
	os.Exit(status)
}

// testLine is, while a panic is handled, the line of the test itself that led to it.
func testLine() (line int) {
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		isOurs := strings.HasPrefix(frame.Function, "main.") && !strings.HasPrefix(frame.Function, "main.main")
		if isOurs && !strings.Contains(frame.Function, "init") && frame.Function != "main.testLine" {
			line = frame.Line
		}
	}
	return line
}

// world is what one test opened and has to leave behind clean.
type world struct {
	connections []*amqp.Connection
	queues      []string
	processes   []*exec.Cmd
}

func (w *world) connect() *amqp.Connection {
	connection, err := amqp.Dial(url)
	check(err)
	w.connections = append(w.connections, connection)
	return connection
}

// channel opens a channel on a connection of its own.
func (w *world) channel() *amqp.Channel {
	return open(w.connect())
}

func open(connection *amqp.Connection) *amqp.Channel {
	channel, err := connection.Channel()
	check(err)
	return channel
}

func fresh(kind string) string {
	random := make([]byte, 12)
	_, err := rand.Read(random)
	check(err)
	return kind + "-" + hex.EncodeToString(random)
}

func (w *world) declare(channel *amqp.Channel, durable bool, arguments amqp.Table) string {
	queue, err := channel.QueueDeclare(fresh("queue"), durable, false, false, false, arguments)
	check(err)
	w.queues = append(w.queues, queue.Name)
	return queue.Name
}

func (w *world) clean() {
	for _, process := range w.processes {
		_ = process.Process.Kill()
		_ = process.Wait()
	}
	for _, connection := range w.connections {
		_ = connection.Close()
	}
	if len(w.queues) == 0 {
		return
	}
	connection, err := amqp.Dial(url)
	if err != nil {
		return
	}
	defer connection.Close()
	for _, name := range w.queues {
		if channel, err := connection.Channel(); err == nil {
			_, _ = channel.QueueDelete(name, false, false, false)
		}
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(got, wanted interface{}) {
	if !reflect.DeepEqual(got, wanted) {
		panic(fmt.Sprintf("got %#v, expected %#v", got, wanted))
	}
}

func send(channel *amqp.Channel, queue string, publishing amqp.Publishing, bodies ...string) {
	for _, body := range bodies {
		publishing.Body = []byte(body)
		check(channel.PublishWithContext(context.Background(), "", queue, true, false, publishing))
	}
}

func consume(channel *amqp.Channel, queue string, autoAck bool) <-chan amqp.Delivery {
	deliveries, err := channel.Consume(queue, "", autoAck, false, false, false, nil)
	check(err)
	return deliveries
}

// next waits for one delivery.
func next(deliveries <-chan amqp.Delivery) amqp.Delivery {
	select {
	case delivery, ok := <-deliveries:
		if !ok {
			panic("the consumer ended")
		}
		return delivery
	case <-time.After(10 * time.Second):
		panic("no delivery within 10 s")
	}
}

func take(deliveries <-chan amqp.Delivery, count int) (taken []string, redelivered int) {
	for len(taken) < count {
		delivery := next(deliveries)
		taken = append(taken, string(delivery.Body))
		if delivery.Redelivered {
			redelivered++
		}
	}
	return taken, redelivered
}

func get(channel *amqp.Channel, queue string) (amqp.Delivery, bool) {
	delivery, ok, err := channel.Get(queue, false)
	check(err)
	return delivery, ok
}

func ready(channel *amqp.Channel, queue string) int {
	state, err := channel.QueueInspect(queue)
	check(err)
	return state.Messages
}

// becomesReady asks until the queue has so many ready messages: RabbitMQ answers ahead of what it has yet to do.
func becomesReady(channel *amqp.Channel, queue string, wanted int) {
	for ready(channel, queue) != wanted {
	}
}

// closed waits for the broker's close, whose code and text must be these.
func closed(closing <-chan *amqp.Error, code int, text string) {
	if len(text) > 255 {
		text = text[:252] + "..."
	}
	select {
	case why := <-closing:
		if why == nil {
			panic("closed with no reason")
		}
		equal(why.Code, code)
		equal(why.Reason, text)
	case <-time.After(10 * time.Second):
		panic("not closed within 10 s")
	}
}

func onClose(channel *amqp.Channel) <-chan *amqp.Error {
	return channel.NotifyClose(make(chan *amqp.Error, 1))
}

func restart(how string) {
	askDriver("restart " + how)
}

// limitFreeDisk blocks publishers from now on while less is free.
func limitFreeDisk(size string) {
	askDriver("ctl set_disk_free_limit " + size)
}

func askDriver(request string) {
	connection, err := net.Dial("tcp", "127.0.0.1:"+controlPort)
	check(err)
	defer connection.Close()
	fmt.Fprintf(connection, "%s\n", request)
	answer, err := io.ReadAll(connection)
	check(err)
	equal(strings.TrimSpace(string(answer)), "ok")
}

// holdMessages is the worker process: prints each body it gets and acknowledges none.
func holdMessages(queue string) {
	w := &world{}
	for delivery := range consume(w.channel(), queue, false) {
		fmt.Println(string(delivery.Body))
	}
}

var five = []string{"0", "1", "2", "3", "4"}

func roundRobin(w *world) {
	channel := w.channel()
	queue := w.declare(channel, false, nil)
	workers := []<-chan amqp.Delivery{}
	for i := 0; i < 3; i++ {
		workers = append(workers, consume(w.channel(), queue, false))
	}
	for n := 0; n < 30; n++ {
		send(channel, queue, amqp.Publishing{}, fmt.Sprint(n))
	}
	for first, worker := range workers {
		for n := first; n < 30; n += 3 {
			equal(string(next(worker).Body), fmt.Sprint(n))
		}
	}
}

func fairDispatch(w *world) {
	channel, slow, fast := w.channel(), w.channel(), w.channel()
	queue := w.declare(channel, false, nil)
	check(slow.Qos(1, 0, false))
	check(fast.Qos(1, 0, false))
	slowly, quickly := consume(slow, queue, false), consume(fast, queue, false)
	send(channel, queue, amqp.Publishing{}, append(five, "5", "6", "7")...)
	equal(string(next(slowly).Body), "0")
	for n := 1; n < 8; n++ {
		delivery := next(quickly)
		equal(string(delivery.Body), fmt.Sprint(n))
		check(delivery.Ack(false))
	}
}

func globalPrefetch(w *world) {
	channel := w.channel()
	queue := w.declare(channel, false, nil)
	check(channel.Qos(3, 0, true))
	deliveries := consume(channel, queue, false)
	send(channel, queue, amqp.Publishing{}, append(five, "5", "6", "7")...)
	take(deliveries, 3)
	becomesReady(channel, queue, 5)
	check(channel.Qos(5, 0, true))
	take(deliveries, 2)
	becomesReady(channel, queue, 3)
	check(channel.Ack(0, true))
	take(deliveries, 3)
}

func acknowledgement(w *world) {
	channel, manual, automatic := w.channel(), w.channel(), w.channel()
	queue := w.declare(channel, false, nil)
	send(channel, queue, amqp.Publishing{}, "a", "b")
	deliveries := consume(manual, queue, false)
	next(deliveries)
	check(next(deliveries).Ack(true))
	check(manual.Close())
	equal(ready(channel, queue), 0)
	send(channel, queue, amqp.Publishing{}, "c", "d")
	take(consume(automatic, queue, true), 2)
	check(automatic.Close())
	equal(ready(channel, queue), 0)
}

// redelivers sends five messages to a worker and, when end has ended it, expects them at one that waits.
func redelivers(w *world, queue string, channel *amqp.Channel, end func()) {
	waiting := consume(channel, queue, false)
	end()
	taken, redelivered := take(waiting, 5)
	equal(taken, five)
	equal(redelivered, 5)
}

func redeliveryOnChannelClose(w *world) {
	channel, worker := w.channel(), w.channel()
	queue := w.declare(channel, false, nil)
	send(channel, queue, amqp.Publishing{}, five...)
	take(consume(worker, queue, false), 5)
	redelivers(w, queue, channel, func() { check(worker.Close()) })
}

func redeliveryOnConnectionClose(w *world) {
	channel, connection := w.channel(), w.connect()
	queue := w.declare(channel, false, nil)
	send(channel, queue, amqp.Publishing{}, five...)
	take(consume(open(connection), queue, false), 5)
	redelivers(w, queue, channel, func() { check(connection.Close()) })
}

func redeliveryOnKill(w *world) {
	channel := w.channel()
	queue := w.declare(channel, false, nil)
	send(channel, queue, amqp.Publishing{}, five...)
	program, err := os.Executable()
	check(err)
	worker := exec.Command(program, "--worker", queue)
	output, err := worker.StdoutPipe()
	check(err)
	check(worker.Start())
	w.processes = append(w.processes, worker)
	lines := bufio.NewScanner(output)
	for _, body := range five {
		lines.Scan()
		equal(lines.Text(), body)
	}
	redelivers(w, queue, channel, func() { check(worker.Process.Kill()) })
}

func nackAndReject(w *world) {
	channel := w.channel()
	queue := w.declare(channel, false, nil)
	send(channel, queue, amqp.Publishing{}, "a", "b", "c")
	first, _ := get(channel, queue)
	second, _ := get(channel, queue)
	third, _ := get(channel, queue)
	check(second.Nack(false, true))
	check(first.Reject(true))
	check(third.Reject(false))
	for _, body := range []string{"a", "b"} {
		again, ok := get(channel, queue)
		equal(ok, true)
		equal(string(again.Body), body)
		equal(again.Redelivered, true)
	}
	_, ok := get(channel, queue)
	equal(ok, false)
}

func unknownDeliveryTag(w *world) {
	channel := w.channel()
	closing := onClose(channel)
	check(channel.Ack(82, false))
	closed(closing, 406, "PRECONDITION_FAILED - unknown delivery tag 82")
}

func ackOnAnotherChannel(w *world) {
	connection := w.connect()
	owner, other := open(connection), open(connection)
	queue := w.declare(owner, false, nil)
	send(owner, queue, amqp.Publishing{}, "a")
	deliveries := consume(owner, queue, false)
	delivery := next(deliveries)
	closing := onClose(other)
	check(other.Ack(delivery.DeliveryTag, false))
	closed(closing, 406, "PRECONDITION_FAILED - unknown delivery tag 1")
	check(delivery.Ack(false))
	send(owner, queue, amqp.Publishing{}, "b")
	equal(string(next(deliveries).Body), "b")
}

func acknowledgementTimeout(w *world) {
	channel, late := w.channel(), w.channel()
	queue := w.declare(channel, false, amqp.Table{"x-consumer-timeout": int32(1000)})
	send(channel, queue, amqp.Publishing{}, "a")
	closing := onClose(late)
	next(consume(late, queue, false))
	waiting := consume(channel, queue, false)
	closed(closing, 406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: "+
		"1000 ms. This timeout value can be configured, see consumers doc guide to learn more")
	delivery := next(waiting)
	equal(delivery.Redelivered, true)
	check(delivery.Ack(false))
}

func extendedLease(w *world) {
	channel, worker := w.channel(), w.channel()
	queue := w.declare(channel, false, amqp.Table{"x-consumer-timeout": int32(1000), "x-consumer-timeout-action": "return"})
	send(channel, queue, amqp.Publishing{}, "a", "b")
	deliveries := consume(worker, queue, false)
	first, second := next(deliveries), next(deliveries)
	equal(string(first.Body)+string(second.Body), "ab")
	// Tables of this client have no unsigned integers.
	send(worker, "amq.leveret.lease", amqp.Publishing{Headers: amqp.Table{
		"x-delivery-tag": int64(first.DeliveryTag), "x-lease-ms": 600_000,
	}}, "")
	again := next(deliveries)
	equal(string(again.Body), "b")
	equal(again.Redelivered, true)
	check(first.Ack(false))
	returns := worker.NotifyReturn(make(chan amqp.Return, 1))
	send(worker, "amq.leveret.lease", amqp.Publishing{Headers: amqp.Table{"x-delivery-tag": 1}}, "")
	back := <-returns
	equal(back.ReplyCode, uint16(312))
	equal(back.ReplyText+" "+back.RoutingKey, "NO_ROUTE amq.leveret.lease")
	closing := onClose(worker)
	send(worker, "amq.leveret.lease", amqp.Publishing{}, "")
	closed(closing, 406, "PRECONDITION_FAILED - invalid lease request: header 'x-delivery-tag' is missing")
}

func redeclare(w *world) {
	channel := w.channel()
	queue := w.declare(channel, true, nil)
	closing := onClose(channel)
	_, err := channel.QueueDeclare(queue, false, false, false, false, nil)
	equal(err != nil, true)
	closed(closing, 406, fmt.Sprintf("PRECONDITION_FAILED - inequivalent arg 'durable' for queue '%s' in vhost '/': "+
		"received 'false' but current is 'true'", queue))
}

func consumerTagTwice(w *world) {
	connection := w.connect()
	channel := open(connection)
	queue := w.declare(channel, false, nil)
	closing := connection.NotifyClose(make(chan *amqp.Error, 1))
	for i := 0; i < 2; i++ {
		_, _ = channel.Consume(queue, "twice", false, false, false, false, nil)
	}
	closed(closing, 530, "NOT_ALLOWED - attempt to reuse consumer tag 'twice'")
}

func immediate(w *world) {
	connection := w.connect()
	channel := open(connection)
	closing := connection.NotifyClose(make(chan *amqp.Error, 1))
	check(channel.PublishWithContext(context.Background(), "", "q", false, true, amqp.Publishing{}))
	closed(closing, 540, "NOT_IMPLEMENTED - immediate=true")
}

func passingQueues(w *world) {
	connection, other := w.connect(), w.connect()
	channel := open(connection)
	named, err := channel.QueueDeclare("", false, false, true, false, nil)
	check(err)
	equal(strings.HasPrefix(named.Name, "amq.gen-"), true)
	locked := open(other)
	closing := onClose(locked)
	_, _ = locked.QueueInspect(named.Name)
	closed(closing, 405, fmt.Sprintf("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. It "+
		"could be originally declared on another connection or the exclusive property value does not match that of the "+
		"original declaration.", named.Name))
	passing, err := channel.QueueDeclare(fresh("passing"), false, true, false, false, nil)
	check(err)
	_, err = channel.Consume(passing.Name, "tag", false, false, false, false, nil)
	check(err)
	check(channel.Cancel("tag", false))
	check(connection.Close())
	for _, name := range []string{passing.Name, named.Name} {
		missing := open(other)
		closing := onClose(missing)
		_, _ = missing.QueueInspect(name)
		closed(closing, 404, fmt.Sprintf("NOT_FOUND - no queue '%s' in vhost '/'", name))
	}
}

func exchangeTypes(w *world) {
	channel := w.channel()
	for _, route := range []struct {
		kind, binding, hit, miss string
		arguments, headers       amqp.Table
	}{
		{"direct", "red", "red", "blue", nil, nil},
		{"topic", "a.*.#", "a.b.c.d", "a", nil, nil},
		{"headers", "", "", "x", amqp.Table{"x-match": "any", "k": "v", "n": int32(1)}, amqp.Table{"n": int64(1)}},
		{"fanout", "", "any", "", nil, nil},
	} {
		exchange := fresh(route.kind)
		check(channel.ExchangeDeclare(exchange, route.kind, false, true, false, false, nil))
		queue := w.declare(channel, false, nil)
		check(channel.QueueBind(queue, route.binding, exchange, false, route.arguments))
		publishing := amqp.Publishing{Headers: route.headers, Body: []byte("hit")}
		check(channel.PublishWithContext(context.Background(), exchange, route.hit, false, false, publishing))
		if route.miss != "" {
			check(channel.PublishWithContext(context.Background(), exchange, route.miss, false, false, amqp.Publishing{}))
		}
		delivery, ok := get(channel, queue)
		equal(ok, true)
		equal([]interface{}{string(delivery.Body), delivery.Exchange, delivery.RoutingKey, delivery.MessageCount},
			[]interface{}{"hit", exchange, route.hit, uint32(0)})
	}
}

func mandatory(w *world) {
	channel := w.channel()
	check(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	publishing := amqp.Publishing{Body: []byte("a")}
	check(channel.PublishWithContext(context.Background(), "amq.direct", "nowhere", true, false, publishing))
	equal((<-confirms).Ack, true)
	returned := <-returns
	equal([]interface{}{returned.ReplyCode, returned.ReplyText, string(returned.Body)}, []interface{}{uint16(312), "NO_ROUTE", "a"})
}

func consumerCancel(w *world) {
	channel, worker := w.channel(), w.channel()
	queue := w.declare(channel, false, nil)
	cancelled := worker.NotifyCancel(make(chan string, 1))
	_, err := worker.Consume(queue, "mine", false, false, false, false, nil)
	check(err)
	_, err = channel.QueueDelete(queue, false, false, false)
	check(err)
	equal(<-cancelled, "mine")
}

func counts(w *world) {
	channel := w.channel()
	queue := w.declare(channel, false, nil)
	_, ok := get(channel, queue)
	equal(ok, false)
	send(channel, queue, amqp.Publishing{}, "a", "b", "c", "d")
	delivery, _ := get(channel, queue)
	equal(delivery.MessageCount, uint32(3))
	purged, err := channel.QueuePurge(queue, false)
	check(err)
	equal(purged, 3)
	send(channel, queue, amqp.Publishing{}, "e")
	deleted, err := channel.QueueDelete(queue, false, false, false)
	check(err)
	equal(deleted, 1)
}

func deadLetters(w *world) {
	channel := w.channel()
	dead := w.declare(channel, false, nil)
	queue := w.declare(channel, false, amqp.Table{
		"x-message-ttl": int32(100), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
	})
	send(channel, queue, amqp.Publishing{}, "a")
	letter := next(consume(channel, dead, true))
	death := letter.Headers["x-death"].([]interface{})[0].(amqp.Table)
	_, isTime := death["time"].(time.Time)
	equal(isTime, true)
	delete(death, "time")
	equal(death, amqp.Table{
		"count": int64(1), "reason": "expired", "queue": queue, "exchange": "", "routing-keys": []interface{}{queue},
	})
	equal(letter.RoutingKey, dead)
}

func lengthLimits(w *world) {
	channel := w.channel()
	check(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 3))
	dropping := w.declare(channel, false, amqp.Table{"x-max-length": int32(2)})
	send(channel, dropping, amqp.Publishing{}, "a", "b", "c")
	head, _ := get(channel, dropping)
	equal(string(head.Body), "b")
	for i := 0; i < 3; i++ {
		equal((<-confirms).Ack, true)
	}
	refusing := w.declare(channel, false, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	for _, accepted := range []bool{true, false} {
		send(channel, refusing, amqp.Publishing{}, "a")
		equal((<-confirms).Ack, accepted)
	}
}

func priorities(w *world) {
	channel := w.channel()
	queue := w.declare(channel, false, amqp.Table{"x-max-priority": int32(5)})
	for i, body := range []string{"a", "b", "c", "d"} {
		send(channel, queue, amqp.Publishing{Priority: []uint8{0, 3, 9, 3}[i]}, body)
	}
	taken, _ := take(consume(channel, queue, true), 4)
	equal(taken, []string{"c", "b", "d", "a"})
}

func transactions(w *world) {
	channel, other := w.channel(), w.channel()
	queue := w.declare(channel, true, nil)
	check(channel.Tx())
	send(channel, queue, amqp.Publishing{DeliveryMode: amqp.Persistent}, "a", "b")
	equal(ready(other, queue), 0)
	check(channel.TxCommit())
	equal(ready(other, queue), 2)
	send(channel, queue, amqp.Publishing{}, "c")
	check(channel.TxRollback())
	delivery, _ := get(channel, queue)
	check(delivery.Ack(false))
	check(channel.TxCommit())
	check(channel.Close())
	equal(ready(other, queue), 1)
}

func bodies(w *world) {
	channel := w.channel()
	queue := w.declare(channel, false, nil)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	deliveries := consume(channel, queue, true)
	for _, body := range [][]byte{{}, {0xce}, bytes.Repeat(every, 4096), bytes.Repeat(every, 81920)} {
		check(channel.PublishWithContext(context.Background(), "", queue, false, false, amqp.Publishing{Body: body}))
		equal(bytes.Equal(next(deliveries).Body, body), true)
	}
}

func properties(w *world) {
	channel := w.channel()
	queue := w.declare(channel, false, nil)
	stamp := time.Unix(1_700_000_000, 0)
	sent := amqp.Publishing{
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: 2, Priority: 9, CorrelationId: "c", ReplyTo: "r",
		Expiration: "60000", MessageId: "m", Timestamp: stamp, Type: "t", UserId: "guest", AppId: "a",
		Headers: amqp.Table{
			"bool": true, "byte": byte(200), "int8": int8(-3), "int16": int16(-300), "int32": int32(-70000), "int64": int64(1) << 40,
			"float32": float32(1.5), "float64": 2.25, "string": "zażółć", "bytes": every256(), "time": stamp, "nil": nil,
			"decimal": amqp.Decimal{Scale: 2, Value: 314}, "array": []interface{}{int32(1), "two", amqp.Table{"three": int64(3)}},
			"table": amqp.Table{"deep": amqp.Table{"deeper": nil}},
		},
	}
	send(channel, queue, sent, "a")
	got, _ := get(channel, queue)
	equal(got.Headers, sent.Headers)
	equal([]interface{}{got.ContentType, got.ContentEncoding, got.DeliveryMode, got.Priority, got.CorrelationId, got.ReplyTo,
		got.Expiration, got.MessageId, got.Timestamp, got.Type, got.UserId, got.AppId},
		[]interface{}{sent.ContentType, sent.ContentEncoding, sent.DeliveryMode, sent.Priority, sent.CorrelationId, sent.ReplyTo,
			sent.Expiration, sent.MessageId, sent.Timestamp, sent.Type, sent.UserId, sent.AppId})
}

func every256() []byte {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return every
}

func directReplyTo(w *world) {
	client, server := w.channel(), w.channel()
	queue := w.declare(server, false, nil)
	replies := consume(client, "amq.rabbitmq.reply-to", true)
	send(client, queue, amqp.Publishing{ReplyTo: "amq.rabbitmq.reply-to", CorrelationId: "1"}, "ping")
	request := next(consume(server, queue, true))
	send(server, request.ReplyTo, amqp.Publishing{CorrelationId: request.CorrelationId}, "pong")
	reply := next(replies)
	equal([]string{string(reply.Body), reply.CorrelationId}, []string{"pong", "1"})
}

// heartbeats: with a heartbeat of 1 s an idle connection lives on, which takes frames from both sides. A queue
// that expires after 4 s unused is the clock.
func heartbeats(w *world) {
	connection, err := amqp.DialConfig(url, amqp.Config{Heartbeat: time.Second})
	check(err)
	w.connections = append(w.connections, connection)
	closing := connection.NotifyClose(make(chan *amqp.Error, 1))
	channel := open(connection)
	dead := w.declare(channel, false, nil)
	queue := w.declare(channel, false, amqp.Table{
		"x-message-ttl": int32(4000), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
	})
	letters := consume(channel, dead, true)
	send(channel, queue, amqp.Publishing{}, "a")
	select {
	case <-letters:
	case why := <-closing:
		panic(why)
	case <-time.After(10 * time.Second):
		panic("no delivery within 10 s")
	}
}

func durable(w *world, how string) {
	channel := w.channel()
	queue, passing := w.declare(channel, true, nil), w.declare(channel, false, nil)
	check(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 10))
	send(channel, queue, amqp.Publishing{DeliveryMode: amqp.Persistent}, "a", "b", "c")
	send(channel, queue, amqp.Publishing{}, "transient")
	for i := 0; i < 4; i++ {
		equal((<-confirms).Ack, true)
	}
	restart(how)
	channel = w.channel()
	deliveries := consume(channel, queue, true)
	taken, _ := take(deliveries, 3)
	equal(taken, []string{"a", "b", "c"})
	send(channel, queue, amqp.Publishing{}, "last")
	equal(string(next(deliveries).Body), "last")
	closing := onClose(channel)
	_, _ = channel.QueueInspect(passing)
	closed(closing, 404, fmt.Sprintf("NOT_FOUND - no queue '%s' in vhost '/'", passing))
}

func blocked(w *world) {
	connection := w.connect()
	channel := open(connection)
	queue := w.declare(channel, true, nil)
	blockings := connection.NotifyBlocked(make(chan amqp.Blocking, 2))
	check(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 10))
	persistent := amqp.Publishing{DeliveryMode: amqp.Persistent}
	send(channel, queue, persistent, "a", "b")
	equal((<-confirms).Ack, true)
	equal((<-confirms).Ack, true)
	limitFreeDisk("1000TB")
	defer limitFreeDisk("50MB")
	worker := w.channel()
	deliveries := consume(worker, queue, false)
	work := func(wanted ...string) {
		for _, body := range wanted {
			delivery := next(deliveries)
			equal(string(delivery.Body), body)
			check(delivery.Ack(false))
		}
	}
	work("a", "b")
	send(channel, queue, persistent, "c")
	equal(<-blockings, amqp.Blocking{Active: true, Reason: "low on disk"})
	send(channel, queue, persistent, "d", "e")
	equal(ready(worker, queue), 0)
	limitFreeDisk("50MB")
	equal(<-blockings, amqp.Blocking{Active: false})
	work("c", "d", "e")
	for i := 0; i < 3; i++ {
		equal((<-confirms).Ack, true)
	}
}

func confirmedSurvive(w *world) {
	channel := w.channel()
	queue := w.declare(channel, true, nil)
	check(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 500))
	killAt := mathrand.New(mathrand.NewSource(time.Now().UnixNano())).Intn(450)
	killed := make(chan struct{})
	confirmed, answered := uint64(0), 0
	go func() {
		for n := 0; n < 500; n++ {
			publishing := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(n))}
			if channel.PublishWithContext(context.Background(), "", queue, false, false, publishing) != nil {
				return
			}
		}
	}()
	for confirmation := range confirms {
		if confirmation.Ack && confirmation.DeliveryTag > confirmed {
			confirmed = confirmation.DeliveryTag
		}
		if answered == killAt {
			go func() { restart("kill"); close(killed) }()
		}
		answered++
	}
	<-killed
	again := w.channel()
	here := 0
	for ; ; here++ {
		delivery, ok := get(again, queue)
		if !ok {
			break
		}
		equal(string(delivery.Body), fmt.Sprint(here))
	}
	if uint64(here) < confirmed {
		panic(fmt.Sprintf("%d confirmed, %d there after a kill near %d", confirmed, here, killAt))
	}
}
