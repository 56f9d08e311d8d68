//! Running one target on many inputs.

use crate::memory::peak_bytes;
use crate::random::Random;
use crate::targets::Target;
use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io;
use std::panic;
use std::path::{Path, PathBuf};

/// Inputs for one target: those of its corpus first, then others made of them and from nothing.
pub struct Runner {
    target: &'static Target,
    corpus: Vec<Vec<u8>>,
    seed: u64,
    next: u64,
}

/// What became of an input.
#[derive(Debug)]
pub struct Outcome {
    /// The most that it held, in bytes.
    pub peak_bytes: usize,
    /// Its own length.
    pub input_bytes: usize,
}

/// An input allocated more than its target may.
#[derive(Debug)]
pub struct Failed {
    /// How much more, in words.
    pub why: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Failed {}

impl Runner {
    /// Runs `target` with the inputs that lie in its corpus.
    ///
    /// # Errors
    /// When the corpus cannot be read.
    pub fn new(target: &'static Target, seed: u64) -> io::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        files.sort();
        let corpus = files.iter().map(fs::read).collect::<io::Result<_>>()?;
        Ok(Self { target, corpus, seed, next: 0 })
    }

    /// How many inputs were run.
    #[must_use]
    pub fn executions(&self) -> u64 {
        self.next
    }

    /// Runs the next input.
    ///
    /// # Errors
    /// When it takes too much memory. What else is wrong with it panics.
    pub fn step(&mut self) -> Result<Outcome, Failed> {
        let input = self.input(self.next);
        let name = format!("{} --seed {} (input {})", self.target.name, self.seed, self.next);
        self.next += 1;
        run(self.target, &name, &input)
    }

    fn input(&self, number: u64) -> Vec<u8> {
        if let Some(known) = self.corpus.get(number as usize) {
            return known.clone();
        }
        let mut random = Random::new(self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let mut input = if self.corpus.is_empty() || random.one_in(2) {
            (self.target.generate)(&mut random)
        } else {
            self.corpus[random.below(self.corpus.len())].clone()
        };
        // A generated input is tried as it is now and then: it gets deepest.
        if !random.one_in(3) {
            (self.target.mutate)(&mut input, &mut random);
        }
        input
    }
}

/// Runs one input; `name` tells where it came from, should it fail.
///
/// # Errors
/// As [`Runner::step`].
pub(crate) fn run(target: &Target, name: &str, input: &[u8]) -> Result<Outcome, Failed> {
    CURRENT.with_borrow_mut(|current| *current = Some((name.to_owned(), input.to_vec())));
    let peak_bytes = peak_bytes(|| (target.run)(input));
    let (base, each) = target.memory;
    let limit = base + each * input.len();
    if peak_bytes > limit {
        save_current();
        let why = format!("{name}: {} bytes of input took {peak_bytes} bytes, more than {limit}", input.len());
        return Err(Failed { why });
    }
    Ok(Outcome { peak_bytes, input_bytes: input.len() })
}

impl Target {
    /// Runs one input, whatever it is.
    ///
    /// # Errors
    /// As [`Runner::step`].
    pub fn check(&self, name: &str, input: &[u8]) -> Result<Outcome, Failed> {
        run(self, name, input)
    }
}

thread_local! {
    /// What this thread is at, for the panic that may come of it.
    static CURRENT: RefCell<Option<(String, Vec<u8>)>> = const { RefCell::new(None) };
}

/// From now on an input that panics is written to the folder `failures` of this package, with a line that says how to
/// run it again. Works for panics that abort, too.
pub fn failures_are_saved_to_disk() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        before(panic);
        save_current();
    }));
}

#[expect(clippy::print_stderr, reason = "the last words of a program that fails")]
fn save_current() {
    let Some((name, input)) = CURRENT.with_borrow_mut(Option::take) else { return };
    let target = name.split(' ').next().unwrap_or_default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("failures");
    let path = folder.join(format!("{target}-{:016x}", Random::of(&input).number()));
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &input)) {
        Ok(()) => {
            eprintln!("failed: {name}");
            eprintln!("again:  cargo run -p leveret-fuzz -- {target} --input {}", path.display());
        }
        Err(error) => eprintln!("failed: {name}; its input cannot be written to {}: {error}", path.display()),
    }
}
