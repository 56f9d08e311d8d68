//! How the files that the process may have open are shared out. The log comes first: its next segment is a file, and a
//! server that cannot open one ends. What clients take before anybody knows them is bounded so that it always can.

use crate::switchboard::Switchboard;
use rustix::process::{Resource, getrlimit};

/// Whose files there may be how many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    /// AMQP clients.
    pub(crate) clients: usize,
    /// Who came for AMQP and has not logged in, at all listeners.
    pub(crate) strangers: usize,
    /// HTTP connections, at each listener and the local socket.
    pub(crate) http_each: usize,
}

/// What takes files.
#[derive(Clone, Copy, Debug)]
struct Takers {
    shards: usize,
    amqp: usize,
    http: usize,
}

impl OpenFiles {
    /// As the process is limited now.
    pub(crate) fn of(board: &Switchboard) -> Self {
        let addresses = board.addresses();
        let amqp = addresses.amqp.len() + addresses.amqps.len();
        let takers = Takers {
            shards: usize::from(board.shards()),
            amqp,
            // And the local socket.
            http: addresses.http.len() + addresses.https.len() + addresses.metrics.len() + 1,
        };
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::shared_out(usize::try_from(limit).unwrap_or(usize::MAX), takers)
    }

    fn shared_out(limit: usize, takers: Takers) -> Self {
        let Takers { shards, amqp, http } = takers;
        let left = limit.saturating_sub(KEPT + shards * KEPT_EACH);
        let strangers = (left / 4).clamp(1, STRANGERS_MAX);
        let http_each = (left / 4 / http.max(1)).clamp(1, HTTP_MAX);
        // Each listener looks whether there is room and then accepts one: all may at the same moment.
        let others = strangers + http * http_each + amqp + http;
        Self { clients: left.saturating_sub(others).max(1), strangers, http_each }
    }
}

/// For the process: listeners, timers, standard streams, a backup at work, files that are read and closed again.
const KEPT: usize = 48;
/// For each shard's log: what is written, read and made anew.
const KEPT_EACH: usize = 16;
/// Each takes some kilobytes.
const STRANGERS_MAX: usize = 4096;
/// Browsers keep six connections; everything else asks and goes.
const HTTP_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_clients_take_the_log_has_files_left() {
        for limit in [200, 256, 400, 1024, 4096, 20_000, 1 << 20] {
            for (amqp, http) in [(2, 5), (4, 7), (1, 1)] {
                let shards = 4;
                let shared = OpenFiles::shared_out(limit, Takers { shards, amqp, http });
                let taken = shared.clients + shared.strangers + http * (shared.http_each + 1) + amqp;
                assert!(taken + KEPT + shards * KEPT_EACH <= limit, "{limit}: {shared:?}");
                assert!(shared.clients >= limit / 16, "{limit}: {shared:?}");
            }
        }
    }

    #[test]
    fn where_there_is_no_limit_http_and_strangers_are_bounded_all_the_same() {
        let shared = OpenFiles::shared_out(usize::MAX, Takers { shards: 1, amqp: 2, http: 3 });
        assert_eq!((shared.strangers, shared.http_each), (STRANGERS_MAX, HTTP_MAX));
    }
}
