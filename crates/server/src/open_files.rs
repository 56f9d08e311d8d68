//! How the files that the process may have open are shared out. The log comes first: its next segment is a file, and a
//! server that cannot open one ends. What clients take before anybody knows them is bounded so that it always can.

use crate::switchboard::Switchboard;
use rustix::process::{Resource, getrlimit};

/// Whose files there may be how many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    /// AMQP clients.
    pub(crate) clients: usize,
    /// Who is still busy with TLS or a PROXY header, at each listener where that comes first.
    pub(crate) preludes_each: usize,
    /// HTTP connections, at each listener and the local socket.
    pub(crate) http_each: usize,
}

/// What takes files.
#[derive(Clone, Copy, Debug)]
struct Takers {
    shards: usize,
    amqp: usize,
    preluding: usize,
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
            preluding: if board.config().proxy_protocol { amqp } else { addresses.amqps.len() },
            // And the local socket.
            http: addresses.http.len() + addresses.https.len() + addresses.metrics.len() + 1,
        };
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::shared_out(usize::try_from(limit).unwrap_or(usize::MAX), takers)
    }

    fn shared_out(limit: usize, takers: Takers) -> Self {
        let Takers { shards, amqp, preluding, http } = takers;
        let left = limit.saturating_sub(KEPT + shards * KEPT_EACH);
        let preludes_each = (left / 4 / preluding.max(1)).clamp(1, PRELUDES_MAX);
        let http_each = (left / 4 / http.max(1)).clamp(1, HTTP_MAX);
        // Each listener looks whether there is room and then accepts one: all may at the same moment.
        let others = preluding * preludes_each + http * http_each + amqp;
        Self { clients: left.saturating_sub(others).max(1), preludes_each, http_each }
    }
}

/// For the process: listeners, timers, standard streams, a backup at work, files that are read and closed again.
const KEPT: usize = 48;
/// For each shard's log: what is written, read and made anew.
const KEPT_EACH: usize = 16;
/// Each takes some kilobytes; who fills all of them keeps others out for as long as a handshake may take.
const PRELUDES_MAX: usize = 4096;
/// Browsers keep six connections; everything else asks and goes.
const HTTP_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_clients_take_the_log_has_files_left() {
        for limit in [200, 256, 400, 1024, 4096, 20_000, 1 << 20] {
            for (amqp, preluding, http) in [(2, 0, 5), (4, 2, 7), (4, 4, 7), (1, 1, 1)] {
                let shards = 4;
                let shared = OpenFiles::shared_out(limit, Takers { shards, amqp, preluding, http });
                let taken = shared.clients + preluding * shared.preludes_each + http * shared.http_each + amqp;
                assert!(taken + KEPT + shards * KEPT_EACH <= limit, "{limit}: {shared:?}");
                assert!(shared.clients >= limit / 16, "{limit}: {shared:?}");
            }
        }
    }

    #[test]
    fn where_there_is_no_limit_http_and_handshakes_are_bounded_all_the_same() {
        let shared = OpenFiles::shared_out(usize::MAX, Takers { shards: 1, amqp: 2, preluding: 2, http: 3 });
        assert_eq!((shared.preludes_each, shared.http_each), (PRELUDES_MAX, HTTP_MAX));
    }
}
