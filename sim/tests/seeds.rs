//! A fixed number of runs, and the runs that once found something.

use leveret_sim::trace;
use leveret_sim::world::World;

/// Runs that failed before something was fixed, with as many steps as it took.
const FOUND: [(u64, u64); 8] = [
    // A recover of several shards took back what was still on its way to the connection.
    (36, 10_000),
    // A connection that had ended reported to a shard.
    (4, 10_000),
    // After a crash and a clean stop, what was delivered before the crash was not redelivered.
    (7, 20_000),
    // A rejected message whose dead letter was on its way at the stop came back as if never delivered.
    (42, 10_000),
    // The log did not shrink when nobody came any more.
    (103, 10_000),
    // A basic.get that waited for a message to be read was forgotten with its channel, and its connection waited on.
    (60871, 20_000),
    // Small messages that had been delivered before were copied to the end of the log for ever.
    (102_079, 20_000),
    // Letters whose next shard had a full disk were left in the log of the last one, once for each time they came back.
    (31_280, 20_000),
];

#[test]
fn what_was_found_once_is_not_found_again() {
    for (seed, steps) in FOUND {
        World::run(seed, steps);
    }
}

#[test]
fn seeds_from_0_on() {
    for seed in 0..40 {
        World::run(seed, 4_000);
    }
}

#[test]
fn seeds_from_1000_on() {
    for seed in 1_000..1_012 {
        World::run(seed, 8_000);
    }
}

#[test]
fn equal_consumers_take_turns() {
    (0..60).for_each(World::run_fairly);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..8 {
        let [one, other] = [(); 2].map(|()| {
            World::run(seed, 3_000);
            trace::hash()
        });
        assert_eq!(one, other, "seed {seed}");
    }
}
