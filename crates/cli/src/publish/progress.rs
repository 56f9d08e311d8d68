//! What is told on the way: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(super) struct Display {
    kind: Kind,
    total_bytes: Option<u64>,
    begun: Instant,
    shown: Instant,
    shown_count: u64,
    /// The last thing shown is a line that is to be written over.
    is_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Silent,
    Bar,
    Lines,
}

impl Display {
    /// Of an input of so many octets, where that is known.
    pub(super) fn new(is_quiet: bool, total_bytes: Option<u64>) -> Self {
        let kind = match io::stderr().is_terminal() {
            _ if is_quiet => Kind::Silent,
            true => Kind::Bar,
            false => Kind::Lines,
        };
        let now = Instant::now();
        Self { kind, total_bytes, begun: now, shown: now, shown_count: 0, is_open: false }
    }

    /// How often it wants to be told.
    pub(super) fn period(&self) -> Duration {
        match self.kind {
            Kind::Bar => Duration::from_millis(250),
            Kind::Silent | Kind::Lines => Duration::from_secs(10),
        }
    }

    /// So many jobs are confirmed, and so many octets of the input.
    pub(super) fn show(&mut self, confirmed: u64, bytes: u64, on_their_way: usize) {
        let now = Instant::now();
        let apart = (now - self.shown).as_secs_f64().max(0.001);
        let rate = confirmed.saturating_sub(self.shown_count) as f64 / apart;
        (self.shown, self.shown_count) = (now, confirmed);
        match self.kind {
            Kind::Silent => {}
            Kind::Bar => {
                let bar = self.total_bytes.map(|total| bar(bytes, total)).unwrap_or_default();
                let _unseen = write!(
                    io::stderr(),
                    "\r{bar}{confirmed} confirmed, {rate:.0}/s, {on_their_way} on their way\x1b[K"
                );
                self.is_open = true;
            }
            Kind::Lines => {
                let part = self.total_bytes.map(|total| format!(" ({})", percent(bytes, total))).unwrap_or_default();
                self.say(&format!("{confirmed} confirmed{part}, {rate:.0}/s"));
            }
        }
    }

    /// Something that is to be known in between.
    pub(super) fn say(&mut self, text: &str) {
        if self.kind != Kind::Silent {
            self.complain(text);
        }
    }

    /// The same for what is told in any case.
    pub(super) fn complain(&mut self, text: &str) {
        let begin = if std::mem::take(&mut self.is_open) { "\r\x1b[K" } else { "" };
        let _unseen = writeln!(io::stderr(), "{begin}leveret publish: {text}");
    }

    /// The end of a run over many jobs.
    pub(super) fn finish(&mut self, confirmed: u64, word: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = confirmed as f64 / seconds.max(0.001);
        self.say(&format!("{confirmed} {word} in {seconds:.1} s ({rate:.0}/s)"));
    }
}

fn percent(bytes: u64, total: u64) -> String {
    format!("{} %", bytes.min(total) * 100 / total.max(1))
}

fn bar(bytes: u64, total: u64) -> String {
    let full = usize::try_from(bytes.min(total) * BAR_WIDTH / total.max(1)).unwrap_or(0);
    let (done, left) = ("#".repeat(full), "-".repeat(BAR_WIDTH as usize - full));
    format!("[{done}{left}] {:>5}  ", percent(bytes, total))
}

const BAR_WIDTH: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_input_is_read() {
        assert_eq!(bar(0, 100), format!("[{}]   0 %  ", "-".repeat(30)));
        assert_eq!(bar(50, 100), format!("[{}{}]  50 %  ", "#".repeat(15), "-".repeat(15)));
        assert_eq!(bar(200, 100), format!("[{}] 100 %  ", "#".repeat(30)));
        assert_eq!(percent(0, 0), "0 %");
    }
}
