//! The host of the catalog: a task that gives it its mailbox and the topology to write.
//!
//! A step happens under the topology's write lock, and what it asks of shards is sent before the lock is released:
//! whoever sees a new queue can be sure that its shard hears of it before anything that is sent to it. Connections are
//! answered after that.

use crate::switchboard::{ShardMail, Switchboard};
use broker::catalog::{Catalog, CatalogOutbox};
use broker::command::{CatalogAsk, CatalogInput, CatalogRequest, ConnectionEvent, ConnectionId};
use broker::identity::IdentityAsk;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// Runs until the switchboard is gone.
pub(crate) async fn run(mut catalog: Catalog, board: Arc<Switchboard>, mut mailbox: UnboundedReceiver<CatalogInput>) {
    let mut mail = Vec::new();
    let mut out = CatalogOutbox { changed: board.client_audit().is_on().then(Vec::new), ..CatalogOutbox::default() };
    let mut answers: Vec<(ConnectionId, Vec<ConnectionEvent>)> = Vec::new();
    while mailbox.recv_many(&mut mail, MAIL_AT_ONCE).await > 0 {
        let now = board.clock().now();
        let concerns = mail.iter().any(concerns_connections);
        let has_new_schedules = {
            let mut topology = board.topology_mut();
            let before = topology.schedule_changes();
            for input in mail.drain(..) {
                catalog.step(now, input, &mut topology, &mut out);
            }
            for (shard, input) in out.shards.drain(..) {
                board.post(shard, ShardMail::Input(input));
            }
            topology.schedule_changes() != before
        };
        if has_new_schedules {
            board.scheduler().wake();
        }
        if concerns {
            board.tell_changed();
        }
        if let Some(changed) = out.changed.as_mut().filter(|changed| !changed.is_empty()) {
            board.record_changed(changed.drain(..));
        }
        answers.extend(out.connections.drain(..).map(|(connection, event)| (connection, vec![event])));
        board.deliver(answers.drain(..));
    }
}

/// Whether this may take a user or a vhost from connections that have it, or begin or end to trace that vhost.
fn concerns_connections(input: &CatalogInput) -> bool {
    let CatalogInput::Request(CatalogRequest { ask: CatalogAsk::Identity(ask), .. }) = input else { return false };
    matches!(**ask, IdentityAsk::DeleteUser { .. } | IdentityAsk::DeleteVhost { .. } | IdentityAsk::TraceVhost { .. })
}

/// How many inputs are handled under one lock: few, so that readers do not wait long.
const MAIL_AT_ONCE: usize = 16;
