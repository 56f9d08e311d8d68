import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MessageProperties;
import java.nio.charset.StandardCharsets;

/** Puts one task on the durable queue task_queue: java -cp ... NewTask.java First task. */
public class NewTask {
    public static void main(String[] words) throws Exception {
        String message = words.length == 0 ? "Hello World!" : String.join(" ", words);
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@localhost:5672/%2f"));

        try (var connection = factory.newConnection(); var channel = connection.createChannel()) {
            channel.queueDeclare("task_queue", true, false, false, null);
            channel.basicPublish("", "task_queue", MessageProperties.PERSISTENT_TEXT_PLAIN,
                    message.getBytes(StandardCharsets.UTF_8));
            System.out.println(" [x] Sent '" + message + "'");
        }
    }
}
