//! What a program says on standard error: lines of progress, and all else, of which the end is kept and which is passed on
//! as far as that is wanted.

use super::progress::Progress;
use super::tail::Tail;
use std::io::Write as _;

/// Where a stream's octets are passed on to, and how many more.
#[derive(Debug)]
pub(super) struct Passage {
    to: Stream,
    left: u64,
}

/// One of the runner's own streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Passage {
    /// So many octets pass; the rest is dropped, after a line that says so.
    pub(super) fn new(to: Stream, bytes_max: u64) -> Self {
        Self { to, left: bytes_max }
    }

    pub(super) fn push(&mut self, octets: &[u8]) {
        if self.left == 0 || octets.is_empty() {
            return;
        }
        let passing = &octets[..octets.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        self.left -= passing.len() as u64;
        // Whoever does not read the runner's output does not want it.
        let _closed = match self.to {
            Stream::Out => {
                let mut out = std::io::stdout().lock();
                out.write_all(passing).and_then(|()| out.flush())
            }
            Stream::Err => std::io::stderr().lock().write_all(passing),
        };
        if self.left == 0 {
            let _closed = std::io::stderr().write_all(FULL);
        }
    }
}

/// What was said.
#[derive(Debug)]
pub(super) struct Said {
    tail: Tail,
    line: Vec<u8>,
    passage: Option<Passage>,
    /// The last line of progress that nobody took yet.
    pub(super) progress: Option<Progress>,
}

impl Said {
    pub(super) fn new(passage: Option<Passage>) -> Self {
        Self { tail: Tail::default(), line: Vec::new(), passage, progress: None }
    }

    pub(super) fn push(&mut self, octets: &[u8]) {
        for piece in octets.split_inclusive(|octet| *octet == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > LINE_BYTES_MAX {
                self.end_line();
            }
        }
    }

    /// Ends a line that has no end.
    pub(super) fn end_line(&mut self) {
        let line = self.line.trim_ascii_end();
        match Progress::read(line) {
            Some(progress) => self.progress = Some(progress),
            None => {
                self.tail.push(&self.line);
                if let Some(passage) = &mut self.passage {
                    passage.push(&self.line);
                }
            }
        }
        self.line.clear();
    }

    /// The end of it, without progress.
    pub(super) fn details(&self) -> Vec<u8> {
        self.tail.as_slice().to_vec()
    }
}

/// Longer ones are taken in pieces.
const LINE_BYTES_MAX: usize = 4096;
const FULL: &[u8] = b"leveret work: this job writes more than --output-max; the rest is dropped\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_taken_out_of_what_is_kept() {
        let mut said = Said::new(None);
        said.push(b"begin\n::progress 1");
        said.push(b"0 of many\nmiddle\r\n::progress 20\nend");
        said.end_line();
        assert_eq!(said.details(), b"begin\nmiddle\r\nend");
        assert_eq!(said.progress.unwrap().told(), "20 %");
    }

    #[test]
    fn a_flood_without_lines_takes_no_memory() {
        let mut said = Said::new(None);
        for _ in 0..1_000 {
            said.push(&[b'x'; 10_000]);
        }
        assert!(said.line.capacity() < 64 << 10);
        assert_eq!(said.details().len(), Tail::BYTES);
    }
}
