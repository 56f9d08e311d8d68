//! The same targets under libFuzzer, which keeps inputs that reach new code. `run.sh` builds and starts it; the target
//! is named by the environment variable `TARGET`.
#![no_main]

use fuzz::Target;
use fuzz::random::Random;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use std::sync::LazyLock;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| panic!("TARGET names no target: '{name}'"))
});

fuzz_target!(|input: &[u8]| {
    if let Err(failed) = TARGET.check(TARGET.name, input) {
        panic!("{failed}");
    }
});

// Plain damage to bytes, damage that knows the format, and now and then something new.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(seed.into());
    if random.one_in(4) {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut input = if random.one_in(20) { (TARGET.generate)(&mut random) } else { data[..size].to_vec() };
    (TARGET.mutate)(&mut input, &mut random);
    let size = input.len().min(max_size);
    data[..size].copy_from_slice(&input[..size]);
    size
});
