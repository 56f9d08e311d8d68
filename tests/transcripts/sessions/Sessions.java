import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.CancelCallback;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DeliverCallback;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

/** A session recorded with the Java client: {@code Sessions PORT priorities}. */
public final class Sessions {
    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost("127.0.0.1");
        factory.setPort(Integer.parseInt(arguments[0]));
        factory.setRequestedHeartbeat(0);
        try (Connection connection = factory.newConnection("recorded")) {
            priorities(connection);
        }
    }

    /** Messages and consumers with priorities, a single active consumer, publisher confirms. */
    private static void priorities(Connection connection) throws Exception {
        Channel channel = connection.createChannel();
        channel.confirmSelect();
        channel.queueDeclare("ranked", false, false, false, Map.of("x-max-priority", 5));
        for (int priority : new int[] {1, 9, 0, 5, 1}) {
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().priority(priority).build();
            channel.basicPublish("", "ranked", properties, ("priority " + priority).getBytes());
            channel.waitForConfirmsOrDie(5000);
        }
        for (int left = 5; left > 0; left--) {
            channel.basicGet("ranked", true);
        }
        channel.queueDeclare("alone", false, false, false, Map.of("x-single-active-consumer", true));
        CountDownLatch delivered = new CountDownLatch(2);
        DeliverCallback count = (tag, delivery) -> delivered.countDown();
        CancelCallback cancelled = tag -> { };
        channel.basicConsume("alone", true, "first", count, cancelled);
        channel.basicConsume("alone", true, "second", count, cancelled);
        channel.basicPublish("", "alone", null, "to the first".getBytes());
        channel.waitForConfirmsOrDie(5000);
        channel.basicCancel("first");
        channel.basicPublish("", "alone", null, "to the second".getBytes());
        channel.waitForConfirmsOrDie(5000);
        delivered.await();
        channel.basicCancel("second");
        String made = channel.queueDeclare().getQueue();
        channel.exchangeDeclare("passing", "fanout", false, true, null);
        channel.queueBind(made, "passing", "");
        channel.queueDelete(made);
        channel.queueDelete("ranked");
        channel.queueDelete("alone");
        channel.basicRecover(true);
        channel.close();
    }
}
