//! What happened, line by line: the last lines for people, a hash over all of them to compare runs by.
//!
//! It belongs to the thread, so that a panic's hook can show it wherever the panic comes from.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::Once;

#[derive(Default)]
struct Trace {
    run: String,
    lines: VecDeque<String>,
    hash: u64,
    /// Every line is printed, too.
    is_shown: bool,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// Forgets everything; `run` says how to do what follows again. A panic of this thread shows that and the last lines.
pub fn begin(run: &str) {
    static HOOK: Once = Once::new();
    HOOK.call_once(tell_of_panics);
    TRACE.with_borrow_mut(|trace| {
        *trace = Trace { run: run.to_owned(), hash: FNV_START, is_shown: trace.is_shown, ..Trace::default() };
    });
}

fn tell_of_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let (run, lines) = TRACE.with_borrow_mut(|trace| {
            let lines = if trace.is_shown { VecDeque::new() } else { std::mem::take(&mut trace.lines) };
            (std::mem::take(&mut trace.run), lines)
        });
        lines.iter().for_each(|line| say(line));
        default(panic);
        if !run.is_empty() {
            say(&format!("FAILED: {run}"));
        }
    }));
}

fn say(line: &str) {
    // Where nobody listens there is nobody to tell.
    let _closed = writeln!(io::stderr(), "{line}");
}

/// From now on every line goes to standard error at once.
pub fn show() {
    TRACE.with_borrow_mut(|trace| trace.is_shown = true);
}

/// Adds a line.
pub fn note(line: fmt::Arguments<'_>) {
    TRACE.with_borrow_mut(|trace| {
        let mut text = if trace.lines.len() < KEPT_LINES { None } else { trace.lines.pop_front() }.unwrap_or_default();
        text.clear();
        fmt::write(&mut text, line).expect("writing to a string does not fail");
        for byte in text.bytes().chain([b'\n']) {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if trace.is_shown {
            say(&text);
        }
        trace.lines.push_back(text);
    });
}

/// A hash over all lines since the last [`begin`].
#[must_use]
pub fn hash() -> u64 {
    TRACE.with_borrow(|trace| trace.hash)
}

const KEPT_LINES: usize = 60;
/// FNV-1a with 64 bits.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
