//! The latest lines of the log, for who cannot read where it goes. They are bounded in number and size.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Remembers what is written, line by line.
#[derive(Clone, Debug, Default)]
pub struct RecentLog(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    lines: VecDeque<String>,
    /// How many there were.
    count: u64,
    bytes: usize,
}

impl RecentLog {
    /// Remembers what was written at once, and forgets the oldest.
    pub fn push(&self, written: &[u8]) {
        let text = without_colours(&String::from_utf8_lossy(written));
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            let line: String = line.chars().take(LINE_CHARS_MAX).collect();
            kept.bytes += line.len();
            kept.count += 1;
            kept.lines.push_back(line);
        }
        while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
            let Some(line) = kept.lines.pop_front() else { break };
            kept.bytes -= line.len();
        }
    }

    /// The lines that are still there after that one, by numbers that begin with 1.
    #[must_use]
    pub fn after(&self, seq: u64) -> Vec<(u64, String)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.count - kept.lines.len() as u64 + 1;
        (first..).zip(kept.lines.iter().cloned()).filter(|(number, _)| *number > seq).collect()
    }
}

impl io::Write for RecentLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A terminal's log has escape sequences, `ESC [ … m`.
fn without_colours(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

const LINES_MAX: usize = 500;
const LINE_CHARS_MAX: usize = 2_000;
const BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept_with_their_numbers() {
        let log = RecentLog::default();
        for number in 1..=LINES_MAX + 2 {
            log.push(format!("line {number}\n").as_bytes());
        }
        assert_eq!(log.after(0).len(), LINES_MAX);
        assert_eq!(log.after(0)[0], (3, "line 3".to_owned()));
        assert_eq!(log.after(LINES_MAX as u64 + 1), [(LINES_MAX as u64 + 2, format!("line {}", LINES_MAX + 2))]);
    }

    #[test]
    fn long_lines_are_cut_and_do_not_pile_up() {
        let log = RecentLog::default();
        for _ in 0..LINES_MAX {
            log.push(&vec![b'x'; 100_000]);
        }
        let lines = log.after(0);
        assert!(lines.iter().all(|(_, line)| line.len() == LINE_CHARS_MAX));
        assert!(lines.len() * LINE_CHARS_MAX <= BYTES_MAX);
    }

    #[test]
    fn colours_are_left_out() {
        let log = RecentLog::default();
        log.push(b"\x1b[2m12:00\x1b[0m \x1b[32m INFO\x1b[0m started\n");
        assert_eq!(log.after(0), [(1, "12:00  INFO started".to_owned())]);
    }
}
