//! Each target, briefly, always with the same inputs: the corpora, and what is made of them.

use fuzz::{Runner, failures_are_saved_to_disk, target};
use std::sync::{Mutex, Once, PoisonError};

/// Memory is measured for the whole process, so one target runs at a time.
static TURN: Mutex<()> = Mutex::new(());
static HOOK: Once = Once::new();

fn run(name: &str, executions: u64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    HOOK.call_once(failures_are_saved_to_disk);
    let target = target(name).expect("a target of this name");
    let mut runner = Runner::new(target, 1).expect("a corpus");
    while runner.executions() < executions {
        runner.step().unwrap_or_else(|failed| panic!("{failed}"));
    }
}

#[test]
fn frames() {
    run("frame", 5000);
}

#[test]
fn methods() {
    run("method", 20_000);
}

#[test]
fn tables_and_properties() {
    run("table", 20_000);
}

#[test]
fn whole_connections() {
    run("connection", 600);
}

#[test]
fn logs() {
    run("recovery", 1000);
}
