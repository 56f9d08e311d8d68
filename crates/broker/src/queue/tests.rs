use crate::command::{QueueId, QueueRef, QueueSettings, QueueSpec, ShardId, VhostId};
use amqp::Table;

pub(crate) fn spec(id: u64, settings: QueueSettings) -> QueueSpec {
    QueueSpec {
        queue: QueueRef { id: QueueId(id), shard: ShardId(0) },
        vhost: VhostId(0),
        vhost_name: "/".into(),
        name: format!("q{id}").into(),
        durable: true,
        auto_delete: false,
        owner: None,
        arguments: Table::new(),
        settings,
    }
}
