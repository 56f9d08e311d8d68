import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** Works on the tasks of task_queue, one at a time; every dot in a task is a second of work. */
public class Worker {
    public static void main(String[] arguments) throws Exception {
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@localhost:5672/%2f"));
        var channel = factory.newConnection().createChannel();
        channel.queueDeclare("task_queue", true, false, false, null);
        channel.basicQos(1);

        System.out.println(" [*] Waiting for tasks. To exit press CTRL+C");
        channel.basicConsume("task_queue", false, new DefaultConsumer(channel) {
            @Override
            public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body)
                    throws IOException {
                String task = new String(body, StandardCharsets.UTF_8);
                System.out.println(" [x] Received '" + task + "'");
                try {
                    Thread.sleep(1000 * task.chars().filter(letter -> letter == '.').count());
                } catch (InterruptedException stopped) {
                    return; // not acknowledged: the broker gives the task to another worker
                }
                System.out.println(" [x] Done");
                channel.basicAck(envelope.getDeliveryTag(), false);
            }
        });
    }
}
