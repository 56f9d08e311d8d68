//! Puts one task on the durable queue `task_queue`: `cargo run --bin new_task First task.`

use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

#[tokio::main]
async fn main() -> lapin::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let message = if words.is_empty() { "Hello World!".to_owned() } else { words.join(" ") };
    let url = std::env::var("AMQP_URL").unwrap_or("amqp://guest:guest@localhost:5672/%2f".to_owned());

    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("task_queue".into(), durable, FieldTable::default()).await?;
    let persistent = BasicProperties::default().with_delivery_mode(2);
    channel
        .basic_publish("".into(), "task_queue".into(), BasicPublishOptions::default(), message.as_bytes(), persistent)
        .await?;
    println!(" [x] Sent '{message}'");
    connection.close(200, "done".into()).await
}
