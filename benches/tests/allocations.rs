//! In steady state no hot path allocates for a message: what it takes is there already, or comes for many at once.
//!
//! A test program of its own, since it counts what its thread asks of the allocator. A path that fails is run again, to
//! show from where it asks.

use benches::{PATHS, Path, work};
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

struct Watching;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// After so many allocations the next one's origin is looked at.
    static LOOK_IN: Cell<u64> = const { Cell::new(u64::MAX) };
    static ORIGINS: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; it only watches and passes on")]
// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        LOOK_IN.with(|left| match left.get() {
            0 => {
                // Looking allocates, too.
                left.set(u64::MAX);
                ORIGINS.with_borrow_mut(|origins| origins.push(Backtrace::force_capture()));
                left.set(LOOK_EVERY);
            }
            u64::MAX => {}
            some => left.set(some - 1),
        });
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

#[test]
fn no_hot_path_allocates_for_a_message() {
    let mut guilty = String::new();
    for path in PATHS {
        let (allocations, messages) = path.run(|rounds, messages| {
            let before = ALLOCATIONS.with(Cell::get);
            let messages = work(rounds, messages);
            (ALLOCATIONS.with(Cell::get) - before, messages)
        });
        let each = allocations as f64 / messages as f64;
        if each > path.allocations_max {
            guilty += &format!("\n{}: {each:.3} allocations per message\n{}", path.name, origins(&path));
        }
    }
    assert!(guilty.is_empty(), "{guilty}");
}

/// From where the path allocates: the innermost functions of ours, most frequent first.
fn origins(path: &Path) -> String {
    path.run(|rounds, messages| {
        LOOK_IN.set(LOOK_EVERY);
        work(rounds, messages);
        LOOK_IN.set(u64::MAX);
    });
    let mut counts = BTreeMap::new();
    let origins = ORIGINS.take();
    for origin in &origins {
        *counts.entry(ours(&origin.to_string())).or_insert(0_u32) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let line = |(origin, count): &(String, u32)| format!("  {} %: {origin}\n", 100 * count / origins.len() as u32);
    counts.iter().take(ORIGINS_SHOWN).map(line).collect()
}

/// The innermost lines of a backtrace that lie in this repository, but for this file's.
fn ours(backtrace: &str) -> String {
    let places = backtrace.lines().filter_map(|line| line.trim().strip_prefix("at "));
    let is_ours = |place: &&str| OTHERS.iter().all(|other| !place.contains(other));
    places.filter(is_ours).take(PLACES_SHOWN).collect::<Vec<_>>().join(" < ")
}

/// Parts of the names of files that are not of interest.
const OTHERS: [&str; 4] = ["/rustc/", "/rust/deps/", "/.cargo/", "tests/allocations.rs"];

const LOOK_EVERY: u64 = 101;
const ORIGINS_SHOWN: usize = 6;
const PLACES_SHOWN: usize = 4;
