//! A line that shows how far a long piece of work is, where somebody can see it.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use store::Progress;

/// A bar on standard error for work that takes longer than a second; nothing where that is no terminal.
pub(super) fn bar(doing: String) -> Option<Box<dyn FnMut(Progress)>> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let mut shown = Instant::now();
    let mut is_shown = false;
    Some(Box::new(move |progress: Progress| {
        let is_done = progress.read_bytes >= progress.total_bytes;
        let is_due = shown.elapsed() >= if is_shown { EVERY } else { FIRST_AFTER };
        let mut stderr = io::stderr();
        // Whoever closed it does not look.
        let _unseen = if is_done && is_shown {
            write!(stderr, "\r\x1b[K")
        } else if is_due && !is_done {
            (shown, is_shown) = (Instant::now(), true);
            write!(stderr, "\r{}\x1b[K", line(&doing, progress))
        } else {
            Ok(())
        };
    }))
}

fn line(doing: &str, progress: Progress) -> String {
    let percent = progress.read_bytes.saturating_mul(100) / progress.total_bytes.max(1);
    let full = usize::try_from(percent).unwrap_or(100).min(100) * WIDTH / 100;
    let (full, empty) = ("#".repeat(full), ".".repeat(WIDTH - full));
    format!("{doing} [{full}{empty}] {percent} % of {} MiB", progress.total_bytes >> 20)
}

const WIDTH: usize = 30;
const FIRST_AFTER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_with_the_work() {
        let progress = Progress { read_bytes: 50 << 20, total_bytes: 100 << 20 };
        let expected = format!("reading [{}{}] 50 % of 100 MiB", "#".repeat(15), ".".repeat(15));
        assert_eq!(line("reading", progress), expected);
        assert_eq!(
            line("x", Progress { read_bytes: 0, total_bytes: 0 }),
            format!("x [{}] 0 % of 0 MiB", ".".repeat(30))
        );
    }
}
