//! Works on the tasks of `task_queue`, one at a time; every dot in a task is a second of work.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

#[tokio::main]
async fn main() -> lapin::Result<()> {
    let url = std::env::var("AMQP_URL").unwrap_or("amqp://guest:guest@localhost:5672/%2f".to_owned());

    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("task_queue".into(), durable, FieldTable::default()).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let mut tasks = channel
        .basic_consume("task_queue".into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;

    println!(" [*] Waiting for tasks. To exit press CTRL+C");
    while let Some(delivery) = tasks.next().await {
        let delivery = delivery?;
        let task = String::from_utf8_lossy(&delivery.data);
        println!(" [x] Received '{task}'");
        tokio::time::sleep(Duration::from_secs(task.matches('.').count() as u64)).await;
        println!(" [x] Done");
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}
