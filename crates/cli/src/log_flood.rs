//! Keeps the log from growing without bound when something goes wrong all the time: each line of the program may log so many
//! messages at once and so many a second after that, and how many were left out is told.
//!
//! Whoever asks for debug messages gets all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::OptionalWriter;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogFlood(Arc<Mutex<Flow>>);

#[derive(Debug, Default)]
struct Flow {
    sources: HashMap<Identifier, Allowance>,
    left_out: u64,
}

#[derive(Debug)]
struct Allowance {
    messages: f64,
    at: Instant,
}

impl LogFlood {
    /// Stands before a writer.
    pub(crate) fn before<W>(&self, writer: W) -> Dam<W> {
        Dam { writer, flood: self.clone() }
    }

    /// Tells for ever what was left out.
    pub(crate) async fn tell(self) {
        loop {
            tokio::time::sleep(TOLD_EVERY).await;
            let left_out = std::mem::take(&mut self.locked().left_out);
            if left_out > 0 {
                tracing::warn!("{left_out} messages like those before are left out here: too many came at once");
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Flow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    fn takes(&mut self, source: Identifier, now: Instant) -> bool {
        let takes = self.sources.entry(source).or_insert(Allowance { messages: AT_ONCE, at: now }).takes(now);
        self.left_out += u64::from(!takes);
        takes
    }
}

impl Allowance {
    fn takes(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.messages, self.at) = ((self.messages + since * A_SECOND).min(AT_ONCE), now);
        let takes = self.messages >= 1.0;
        self.messages -= f64::from(u8::from(takes));
        takes
    }
}

/// Writes by way of another what there is room for.
#[derive(Debug)]
pub(crate) struct Dam<W> {
    writer: W,
    flood: LogFlood,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Dam<W> {
    type Writer = OptionalWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OptionalWriter::some(self.writer.make_writer())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let takes = *metadata.level() > Level::INFO || self.flood.locked().takes(metadata.callsite(), Instant::now());
        if takes { OptionalWriter::some(self.writer.make_writer_for(metadata)) } else { OptionalWriter::none() }
    }
}

/// Ten thousand clients that all at once do something that is worth a line are told of by the first of them.
const AT_ONCE: f64 = 1_000.0;

/// A hundred megabytes a day or two, which whoever keeps logs has room for.
const A_SECOND: f64 = 5.0;

const TOLD_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use tracing_subscriber::layer::SubscriberExt as _;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_from_one_place_is_cut_and_others_are_heard() {
        let (lines, flood) = (Lines::default(), LogFlood::default());
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(flood.before(move || writer.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for _ in 0..3_000 {
                tracing::warn!("a client sends rubbish");
                tracing::debug!("in detail");
            }
            tracing::warn!("the disk is full");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        assert!((1_000..2_000).contains(&count("rubbish")), "{}", count("rubbish"));
        assert_eq!((count("in detail"), count("disk")), (3_000, 1));
        assert_eq!(flood.locked().left_out, 3_000 - count("rubbish") as u64);
    }

    #[test]
    fn after_a_while_there_is_room_again() {
        let now = Instant::now();
        let mut allowance = Allowance { messages: AT_ONCE, at: now };
        assert!((0..1_000).all(|_| allowance.takes(now)) && !allowance.takes(now));
        let later = now + Duration::from_secs(2);
        assert_eq!((0..20).filter(|_| allowance.takes(later)).count(), 10);
    }
}
