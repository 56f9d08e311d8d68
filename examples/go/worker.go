// worker works on the tasks of task_queue, one at a time; every dot in a task is a second of work.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	url := os.Getenv("AMQP_URL")
	if url == "" {
		url = "amqp://guest:guest@localhost:5672/"
	}

	connection, err := amqp.Dial(url)
	check(err)
	defer connection.Close()
	channel, err := connection.Channel()
	check(err)
	queue, err := channel.QueueDeclare("task_queue", true, false, false, false, nil)
	check(err)
	check(channel.Qos(1, 0, false))
	tasks, err := channel.Consume(queue.Name, "", false, false, false, false, nil)
	check(err)

	fmt.Println(" [*] Waiting for tasks. To exit press CTRL+C")
	for task := range tasks {
		fmt.Printf(" [x] Received '%s'\n", task.Body)
		time.Sleep(time.Duration(bytes.Count(task.Body, []byte("."))) * time.Second)
		fmt.Println(" [x] Done")
		check(task.Ack(false))
	}
	log.Fatal("the connection to the broker was lost")
}
