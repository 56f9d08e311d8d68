//! The server's allocator, watched: how often it is asked, and from where.

use std::alloc::{GlobalAlloc, Layout};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use tikv_jemallocator::Jemalloc;

/// See the module.
#[derive(Debug)]
pub(crate) struct Watched;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
    /// After so many times the next one's origin is looked at.
    static LOOK_IN: Cell<u64> = const { Cell::new(u64::MAX) };
    static ORIGINS: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; it only watches and passes on")]
// SAFETY: every call goes to the allocator behind it unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        asked();
        // SAFETY: the caller's promises are passed on.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        asked();
        // SAFETY: the caller's promises are passed on.
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        asked();
        // SAFETY: the caller's promises are passed on.
        unsafe { Jemalloc.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { Jemalloc.dealloc(pointer, layout) }
    }
}

/// Counts, in few instructions, since those are counted too.
#[inline(always)]
fn asked() {
    ASKED.with(|asked| asked.set(asked.get() + 1));
    LOOK_IN.with(|left| match left.get() {
        u64::MAX => {}
        0 => look(left),
        some => left.set(some - 1),
    });
}

#[cold]
fn look(left: &Cell<u64>) {
    // Looking allocates, too.
    left.set(u64::MAX);
    ORIGINS.with_borrow_mut(|origins| origins.push(Backtrace::force_capture()));
    left.set(LOOK_EVERY);
}

/// How often this thread asked for memory so far.
pub(crate) fn count() -> u64 {
    ASKED.get()
}

/// Does the work and says from where it asks for memory: the innermost lines of ours, with their share in percent, most
/// frequent first.
pub(crate) fn origins(work: impl FnOnce()) -> Vec<(usize, String)> {
    LOOK_IN.set(LOOK_EVERY);
    work();
    LOOK_IN.set(u64::MAX);
    let origins = ORIGINS.take();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for origin in &origins {
        *counts.entry(ours(&origin.to_string())).or_default() += 1;
    }
    let mut shares: Vec<_> = counts.into_iter().map(|(origin, count)| (100 * count / origins.len(), origin)).collect();
    shares.sort_by_key(|(share, _)| std::cmp::Reverse(*share));
    shares
}

/// The innermost lines of a backtrace that lie in this repository, but for this crate.
fn ours(backtrace: &str) -> String {
    let places = backtrace.lines().filter_map(|line| line.trim().strip_prefix("at "));
    let is_ours = |place: &&str| OTHERS.iter().all(|other| !place.contains(other));
    let shown = |place: &str| place.find("crates/").map_or(place, |at| &place[at..]).to_owned();
    places.filter(is_ours).take(PLACES_SHOWN).map(shown).collect::<Vec<_>>().join(" < ")
}

/// Parts of the names of files that are not of interest.
const OTHERS: [&str; 4] = ["/rustc/", "/rust/deps/", "/.cargo/", "benches/src/"];
const PLACES_SHOWN: usize = 4;

/// Prime, so that it falls on all kinds in turn.
const LOOK_EVERY: u64 = 101;
