// Sessions recorded with amqp091-go: `sessions PORT NAME`.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	connection, err := amqp.Dial(fmt.Sprintf("amqp://guest:guest@127.0.0.1:%s/", os.Args[1]))
	check(err)
	defer connection.Close()
	channel, err := connection.Channel()
	check(err)
	map[string]func(*amqp.Connection, *amqp.Channel){"redelivery": redelivery, "properties": properties}[os.Args[2]](
		connection, channel)
}

func publish(channel *amqp.Channel, queue string, message amqp.Publishing) {
	check(channel.PublishWithContext(context.Background(), "", queue, false, false, message))
}

// What is unacknowledged comes back in order when its channel closes, or when it is refused.
func redelivery(connection *amqp.Connection, channel *amqp.Channel) {
	_, err := channel.QueueDeclare("again", false, false, false, false, nil)
	check(err)
	for _, body := range []string{"1", "2", "3", "4"} {
		publish(channel, "again", amqp.Publishing{Body: []byte(body)})
	}
	// All four are to be there when the consumer starts.
	time.Sleep(50 * time.Millisecond)
	first, err := connection.Channel()
	check(err)
	deliveries, err := first.Consume("again", "first", false, false, false, false, nil)
	check(err)
	for i := 0; i < 4; i++ {
		<-deliveries
	}
	check(first.Close())
	deliveries, err = channel.Consume("again", "second", false, false, false, false, nil)
	check(err)
	for number := 0; number < 4; number++ {
		delivery := <-deliveries
		if number == 1 {
			check(delivery.Reject(false))
		} else if number == 3 {
			check(delivery.Nack(true, true))
		}
	}
	for i := 0; i < 3; i++ {
		<-deliveries
	}
	check(channel.Ack(0, true))
	check(channel.Cancel("second", false))
	_, err = channel.QueueDelete("again", false, false, false)
	check(err)
}

// Every property and every kind of header comes back as it was.
func properties(_ *amqp.Connection, channel *amqp.Channel) {
	queue, err := channel.QueueDeclare("", false, true, true, false, nil)
	check(err)
	now := time.Unix(1700000000, 0)
	publish(channel, queue.Name, amqp.Publishing{
		Headers: amqp.Table{
			"bool": true, "int8": int8(-1), "int16": int16(-2), "int32": int32(-3), "int64": int64(-4),
			"float32": float32(1.5), "float64": 2.5, "decimal": amqp.Decimal{Scale: 2, Value: 314}, "string": "s",
			"bytes": []byte{0, 255}, "when": now, "void": nil, "array": []interface{}{"a", int32(1), nil},
			"table": amqp.Table{"deep": amqp.Table{"er": int64(1) << 40}},
		},
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Priority: 9,
		CorrelationId: "c", ReplyTo: "r", Expiration: "60000", MessageId: "m", Timestamp: now, Type: "t",
		UserId: "guest", AppId: "a", Body: []byte("body"),
	})
	_, _, err = channel.Get(queue.Name, true)
	check(err)
}
