//! An operator: an internal pseudo-connection through which the HTTP API asks the machines what clients ask them.
//!
//! It has a connection's id and mailbox, but no socket and no `Connection`. It asks one question at a time. When it is
//! dropped its channels end as those of a closed connection: what it holds unacked goes back, its exclusive queues go.

use crate::switchboard::{ConnectionMail, Seat, ShardMail, Switchboard, Unanswered};
use broker::access::Subject;
use broker::command::{
    Batch, CallId, CatalogAsk, CatalogRequest, Command, ConnectionEvent, ConnectionId, Outcome, ShardId, VhostId,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

/// See the module.
#[derive(Debug)]
pub struct Operator {
    board: Arc<Switchboard>,
    seat: Seat,
    /// By whose rights it asks; `None` = it may ask anything.
    user: Option<Subject>,
    mailbox: UnboundedReceiver<ConnectionMail>,
    last_number: u64,
    shards: BTreeSet<ShardId>,
    asked_catalog: bool,
}

impl Operator {
    pub(crate) fn new(
        board: Arc<Switchboard>,
        seat: Seat,
        user: Option<Subject>,
        mailbox: UnboundedReceiver<ConnectionMail>,
    ) -> Self {
        Self { board, seat, user, mailbox, last_number: 0, shards: BTreeSet::new(), asked_catalog: false }
    }

    /// The connection that it is to the machines.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.seat.id
    }

    /// Asks the catalog. A refusal is an [`Outcome::Fault`].
    ///
    /// # Errors
    /// [`Unanswered`]
    pub async fn ask(&mut self, vhost: VhostId, ask: CatalogAsk) -> Result<Outcome, Unanswered> {
        let call = CallId(self.number());
        self.asked_catalog = true;
        self.board.request(CatalogRequest { connection: self.id(), call, vhost, user: self.user.clone(), ask });
        self.answer(call).await
    }

    /// Asks a shard one of the [`Command`]s that are answered by an [`Outcome`]. A refusal is an [`Outcome::Fault`].
    ///
    /// # Errors
    /// [`Unanswered`]
    pub async fn command(
        &mut self,
        shard: ShardId,
        command: impl FnOnce(CallId) -> Command,
    ) -> Result<Outcome, Unanswered> {
        let call = CallId(self.number());
        self.send(shard, vec![command(call)]);
        self.answer(call).await
    }

    /// Sends a shard commands that are not answered: [`Command::Settle`] and limits.
    pub fn send(&mut self, shard: ShardId, commands: Vec<Command>) {
        self.shards.insert(shard);
        let batch = Batch { connection: self.id(), commands };
        self.board.post(shard, ShardMail::Batch(batch, None));
    }

    /// Publishes to queues of one shard and waits until the messages are as safe as a publisher confirm promises.
    /// Returns which of them a full queue refused, by position.
    ///
    /// # Errors
    /// [`Unanswered`]: it may be stored, or not.
    pub async fn publish(&mut self, shard: ShardId, mut commands: Vec<Command>) -> Result<Vec<u32>, Unanswered> {
        let asked = self.number();
        commands.push(Command::Mark { mark: asked });
        // The one thing that operators send in bulk: it waits for its turn as a client's publishes do.
        let permit = self.board.room(shard, &commands).await.ok_or(Unanswered)?;
        self.shards.insert(shard);
        self.board.send_with(permit, self.id(), shard, commands);
        self.receive(|event| match event {
            ConnectionEvent::Stored { mark, refused, .. } if mark == asked => Some(refused),
            _ => None,
        })
        .await
    }

    async fn answer(&mut self, asked: CallId) -> Result<Outcome, Unanswered> {
        self.receive(|event| match event {
            ConnectionEvent::Done { call, outcome } if call == asked => Some(outcome),
            _ => None,
        })
        .await
    }

    /// Waits for the event that `pick` accepts; what else comes is a late answer to a question given up.
    async fn receive<T>(&mut self, pick: impl Fn(ConnectionEvent) -> Option<T>) -> Result<T, Unanswered> {
        let deadline = Instant::now() + ANSWER_TIME;
        loop {
            let mail = timeout_at(deadline, self.mailbox.recv()).await.map_err(|_| Unanswered)?;
            match mail.ok_or(Unanswered)? {
                ConnectionMail::Events(events) => {
                    if let Some(found) = events.into_iter().find_map(&pick) {
                        return Ok(found);
                    }
                }
                ConnectionMail::Inspect(_) | ConnectionMail::Changed => {}
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        for shard in std::mem::take(&mut self.shards) {
            let call = CallId(self.number());
            self.send(shard, vec![Command::CloseConnection { call }]);
        }
        if self.asked_catalog {
            let call = CallId(self.number());
            let ask = CatalogAsk::CloseConnection;
            self.board.request(CatalogRequest { connection: self.id(), call, vhost: VhostId(0), user: None, ask });
        }
    }
}

/// How long a machine may take to answer. A durable change waits for the disk.
const ANSWER_TIME: Duration = Duration::from_secs(30);
