//! How much of what shards delivered has left for the client: what they may send again.

use crate::command::{Command, ShardId, WINDOW_BYTES};
use std::collections::VecDeque;

/// Deliveries that wait in the out-buffer, by the shard that sent them.
#[derive(Debug)]
pub(crate) struct Windows {
    /// Runs of deliveries: where each ends in the stream of sent bytes, whose it is, what it took of the window.
    waiting: VecDeque<(u64, ShardId, u64)>,
    /// Left, and not yet reported, by shard.
    drained: Vec<u64>,
    /// Bytes of deliveries that wait.
    pub(crate) undelivered: u64,
    /// The shards were told that the connection ends: they want to hear nothing more of it.
    is_over: bool,
}

impl Windows {
    pub(crate) fn new(shards: u16) -> Self {
        Self { waiting: VecDeque::new(), drained: vec![0; usize::from(shards)], undelivered: 0, is_over: false }
    }

    /// A delivery is encoded; it has left when `end` bytes were sent in all.
    pub(crate) fn encoded(&mut self, shard: ShardId, window_bytes: u64, end: u64) {
        self.undelivered += window_bytes;
        match self.waiting.back_mut() {
            Some((last_end, last_shard, bytes)) if *last_shard == shard && *bytes < RUN_BYTES => {
                *last_end = end;
                *bytes += window_bytes;
            }
            _ => self.waiting.push_back((end, shard, window_bytes)),
        }
    }

    /// A delivery will not be sent: its channel or consumer is gone.
    pub(crate) fn dropped(&mut self, shard: ShardId, window_bytes: u64, shards: &mut [Vec<Command>]) {
        self.add(shard, window_bytes, shards);
    }

    /// So many bytes were sent in all.
    pub(crate) fn sent(&mut self, sent: u64, shards: &mut [Vec<Command>]) {
        while let Some((_, shard, bytes)) = self.waiting.pop_front_if(|(end, ..)| *end <= sent) {
            self.undelivered -= bytes;
            self.add(shard, bytes, shards);
        }
    }

    /// From now on nothing is reported.
    pub(crate) fn end(&mut self) {
        self.is_over = true;
    }

    fn add(&mut self, shard: ShardId, bytes: u64, shards: &mut [Vec<Command>]) {
        let at = usize::from(shard.0);
        self.drained[at] += bytes;
        if self.drained[at] >= REPORT_BYTES && !self.is_over {
            shards[at].push(Command::Drained { bytes: self.drained[at] });
            self.drained[at] = 0;
        }
    }
}

/// Small enough that a run that leaves in part does not hold the window up.
const RUN_BYTES: u64 = WINDOW_BYTES / 16;
/// A quarter keeps reports rare and the window open.
const REPORT_BYTES: u64 = WINDOW_BYTES / 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reported_after_the_end() {
        let mut windows = Windows::new(1);
        let mut shards = vec![vec![]];
        windows.encoded(ShardId(0), WINDOW_BYTES, 10);
        windows.end();
        windows.sent(10, &mut shards);
        assert!(shards[0].is_empty(), "a shard would take it for a new connection");
    }

    #[test]
    fn everything_sent_is_reported_but_for_less_than_a_quarter() {
        let mut windows = Windows::new(2);
        let mut shards = vec![vec![], vec![]];
        let mut end = 0;
        for _ in 0..10_000 {
            end += 100;
            windows.encoded(ShardId(1), 100, end);
            windows.sent(end - 50, &mut shards);
        }
        windows.sent(end, &mut shards);
        let reported: u64 = shards[1]
            .iter()
            .map(|command| match command {
                Command::Drained { bytes } => *bytes,
                other => panic!("{other:?}"),
            })
            .sum();
        assert!(reported <= end && end - reported < REPORT_BYTES, "{reported} of {end}");
        assert!(shards[0].is_empty());
        assert_eq!(windows.undelivered, 0);
    }
}
