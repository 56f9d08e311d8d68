//! How many instructions and allocations the hot paths take for a message, held against what was agreed.
//!
//! Valgrind counts the instructions, and the count depends on the code and the compiler and on next to nothing else, so
//! it shows what a clock on a shared machine cannot: that a change made a path dearer by a twentieth. It does not know
//! what a cache miss costs, nor the kernel; `leveret bench` does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use anyhow::{Context, Result, bail};

/// What was agreed, from the repository's root.
const AGREED: &str = "benches/instructions.txt";

/// A path that takes so many times the instructions that were agreed has become dearer; cheaper at the reverse.
const LIMIT: f64 = 1.05;

/// So many allocations per message more are too many; so many less are worth to be kept.
const ALLOCATIONS: f64 = 0.01;

/// What a message of a path takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

/// Counts all paths, prints them beside what was agreed, and fails on one that has become dearer. With `accept` the
/// new counts are what is agreed from now on.
#[expect(clippy::print_stdout, reason = "a command line tool")]
pub(crate) fn compare(root: &Path, accept: bool) -> Result<()> {
    let program = Program::build(root)?;
    let counts = program.count(&program.paths()?)?;
    let file = root.join(AGREED);
    let made_with = made_with(root)?;
    if accept {
        fs::write(&file, Agreed { made_with, counts }.to_text())?;
        println!("written to {AGREED}");
        return Ok(());
    }
    let agreed = Agreed::parse(&fs::read_to_string(&file).with_context(|| file.display().to_string())?)?;
    let verdict = agreed.compare(&counts);
    print!("{}", verdict.table);
    if agreed.made_with != made_with {
        let then = agreed.made_with;
        println!("{AGREED} was made with {then}, these counts with {made_with}: nothing follows from a difference.");
        return Ok(());
    }
    if !verdict.cheaper.is_empty() {
        println!("cheaper: {}. Have it kept: cargo xtask instructions --accept", verdict.cheaper.join(", "));
    }
    if !verdict.wrong.is_empty() {
        bail!(
            "{}. `cargo xtask instructions PATH` shows where it comes from; if it is worth that, \
             say why in the commit that has {AGREED} as `cargo xtask instructions --accept` writes it",
            verdict.wrong.join("; ")
        );
    }
    Ok(())
}

/// Counts these paths and prints the functions that take most of each.
#[expect(clippy::print_stdout, reason = "a command line tool")]
pub(crate) fn profile(root: &Path, paths: &[&str]) -> Result<()> {
    let program = Program::build(root)?;
    for path in paths {
        let Run { messages, allocations, file } = program.run(path)?;
        let profile = fs::read_to_string(&file)?;
        let per_message = |count: u64| count as f64 / messages as f64;
        println!("{path}: {:.1} instructions per message", per_message(total(&profile)?));
        for (function, count) in by_function(&profile).into_iter().take(FUNCTIONS) {
            println!("{:>10.1}  {function}", per_message(count));
        }
        println!("{path}: {:.3} allocations per message", per_message(allocations));
        print!("{}", program.origins(path)?);
        println!("callgrind_annotate --tree=both --inclusive=yes {}", file.display());
    }
    Ok(())
}

/// Whether counting is possible here.
pub(crate) fn is_possible() -> bool {
    Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The program that runs the paths.
struct Program {
    file: PathBuf,
    profiles: PathBuf,
}

impl Program {
    fn build(root: &Path) -> Result<Self> {
        if !is_possible() {
            bail!("valgrind counts the instructions, and is not installed (Debian, Ubuntu: apt-get install valgrind)");
        }
        let built = Command::new(env!("CARGO"))
            .args(["build", "-q", "--release", "-p", "leveret-benches", "--bin", "hot-paths"])
            .current_dir(root)
            .status()
            .context("cargo could not be started")?;
        if !built.success() {
            bail!("the hot paths cannot be built");
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let profiles = target.join("instructions");
        fs::create_dir_all(&profiles)?;
        Ok(Self { file: target.join("release/hot-paths"), profiles })
    }

    fn paths(&self) -> Result<Vec<String>> {
        let output = Command::new(&self.file).output()?;
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    /// What each path takes, as many at a time as there are processors.
    fn count(&self, paths: &[String]) -> Result<BTreeMap<String, Cost>> {
        let next = AtomicUsize::new(0);
        let counts = Mutex::new(BTreeMap::new());
        let count_some = || -> Result<()> {
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Run { messages, allocations, file } = self.run(path)?;
                let instructions = total(&fs::read_to_string(file)?)? as f64 / messages as f64;
                let cost = Cost { instructions, allocations: allocations as f64 / messages as f64 };
                counts.lock().expect("nobody panics with it").insert(path.clone(), cost);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            let workers: Vec<_> = (0..processors).map(|_| scope.spawn(count_some)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
        })?;
        Ok(counts.into_inner().expect("nobody panicked with it"))
    }

    /// From where a path asks for memory.
    fn origins(&self, path: &str) -> Result<String> {
        let output = Command::new(&self.file).args([path, "origins"]).output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a path under valgrind.
    fn run(&self, path: &str) -> Result<Run> {
        let profile = self.profiles.join(format!("{path}.callgrind"));
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--toggle-collect=hot_paths::counted*"])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(&self.file)
            .arg(path)
            // The stack begins with the environment, and must lie the same everywhere.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GLIBC_TUNABLES", TUNABLES)
            .env("_RJEM_MALLOC_CONF", ALLOCATOR)
            .output()
            .context("valgrind could not be started")?;
        if !output.status.success() {
            bail!("{path} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let said = String::from_utf8(output.stdout)?;
        let (messages, allocations) = said.trim().split_once(' ').context("the program says what it counted")?;
        Ok(Run { messages: messages.parse()?, allocations: allocations.parse()?, file: profile })
    }
}

/// What came of running a path.
struct Run {
    messages: u64,
    allocations: u64,
    /// The profile that valgrind wrote.
    file: PathBuf,
}

/// Which copy routine the C library takes depends on the processor; valgrind counts some of them byte by byte.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2_Usable,-AVX2,-ERMS,-Prefer_ERMS";

/// What the allocator does by the clock and in threads of its own is left out.
const ALLOCATOR: &str = "background_thread:false,dirty_decay_ms:-1,muzzy_decay_ms:-1,narenas:1";

/// The compiler and the system, on which the counts depend.
fn made_with(root: &Path) -> Result<String> {
    let output =
        Command::new("rustc").arg("--version").current_dir(root).output().context("rustc could not be started")?;
    let rustc = String::from_utf8(output.stdout)?;
    let libc = Command::new("getconf").arg("GNU_LIBC_VERSION").output().map(|output| output.stdout).unwrap_or_default();
    let libc = String::from_utf8(libc)?;
    Ok(format!("{}, {}, {}", rustc.trim(), std::env::consts::ARCH, libc.trim()))
}

/// All instructions of a profile.
fn total(profile: &str) -> Result<u64> {
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ")).context("a profile has its total")?;
    match total.trim().parse()? {
        0 => bail!("nothing was counted: valgrind did not find the function that it should count"),
        total => Ok(total),
    }
}

/// The instructions of each function itself, most first.
fn by_function(profile: &str) -> Vec<(String, u64)> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut current = "";
    let mut is_call = false;
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            current = named(name, &mut names);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            named(name, &mut names);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
            // The line after a call has what was spent in what was called.
            let count = line.split(' ').nth(1).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
            if !std::mem::take(&mut is_call) {
                *counts.entry(current).or_default() += count;
            }
        }
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// What `(12) name` names, or `(12)`, which is short for what was named before.
fn named<'a>(text: &'a str, names: &mut BTreeMap<&'a str, &'a str>) -> &'a str {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(text).copied().unwrap_or(text),
    }
}

/// How many functions of a profile are shown.
const FUNCTIONS: usize = 30;

/// The counts that were agreed.
#[derive(Debug, PartialEq)]
struct Agreed {
    made_with: String,
    counts: BTreeMap<String, Cost>,
}

/// What a comparison comes to.
struct Verdict {
    table: String,
    cheaper: Vec<String>,
    /// A sentence on each path that is dearer, new or gone.
    wrong: Vec<String>,
}

impl Agreed {
    fn to_text(&self) -> String {
        let mut text = format!("{HEADING}{MADE_WITH}{}\n", self.made_with);
        for (path, cost) in &self.counts {
            text += &line(path, *cost);
            text += "\n";
        }
        text
    }

    fn parse(text: &str) -> Result<Self> {
        let mut agreed = Self { made_with: String::new(), counts: BTreeMap::new() };
        for line in text.lines() {
            if let Some(made_with) = line.strip_prefix(MADE_WITH) {
                made_with.clone_into(&mut agreed.made_with);
            } else if !line.starts_with('#') {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [path, instructions, allocations] = words[..] else { bail!("{AGREED}: {line}") };
                let cost = Cost { instructions: instructions.parse()?, allocations: allocations.parse()? };
                agreed.counts.insert(path.to_owned(), cost);
            }
        }
        Ok(agreed)
    }

    fn compare(&self, counts: &BTreeMap<String, Cost>) -> Verdict {
        let mut verdict = Verdict { table: String::new(), cheaper: Vec::new(), wrong: Vec::new() };
        for (path, cost) in counts {
            let Some(agreed) = self.counts.get(path) else {
                verdict.wrong.push(format!("{path} is new"));
                verdict.table += &format!("{}\n", line(path, *cost));
                continue;
            };
            let ratio = cost.instructions / agreed.instructions;
            let percent = (ratio - 1.0) * 100.0;
            let more = cost.allocations - agreed.allocations;
            verdict.table += &format!("{} {percent:>+6.1} % {more:>+8.3}\n", line(path, *cost));
            if ratio > LIMIT {
                let (now, then) = (cost.instructions, agreed.instructions);
                verdict
                    .wrong
                    .push(format!("{path} takes {now:.0} instructions, agreed were {then:.0} ({percent:+.1} %)"));
            }
            if more > ALLOCATIONS {
                let (now, then) = (cost.allocations, agreed.allocations);
                verdict.wrong.push(format!("{path} takes {now:.3} allocations, agreed were {then:.3}"));
            }
            if ratio < 1.0 / LIMIT || more < -ALLOCATIONS {
                verdict.cheaper.push(path.clone());
            }
        }
        let gone = self.counts.keys().filter(|path| !counts.contains_key(*path));
        verdict.wrong.extend(gone.map(|path| format!("{path} is gone")));
        verdict
    }
}

fn line(path: &str, cost: Cost) -> String {
    format!("{path:<20} {:>10.1} {:>10.3}", cost.instructions, cost.allocations)
}

const HEADING: &str = "\
# Instructions and allocations per message of each hot path (benches/src/lib.rs). `cargo xtask instructions` compares,
# and fails at a rise of more than 5 % or 0.01 allocations; `cargo xtask instructions --accept` writes this file. The
# commit says why a path became dearer.
";
const MADE_WITH: &str = "# Made with ";

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(counts: &[(&str, f64, f64)]) -> Agreed {
        let cost = |&(path, instructions, allocations): &(&str, f64, f64)| {
            (path.to_owned(), Cost { instructions, allocations })
        };
        Agreed { made_with: "rustc 1".to_owned(), counts: counts.iter().map(cost).collect() }
    }

    #[test]
    fn what_is_written_is_read() {
        let agreed = agreed(&[("a-path", 100.5, 0.25), ("b", 7.0, 0.0)]);
        assert_eq!(Agreed::parse(&agreed.to_text()).unwrap(), agreed);
    }

    #[test]
    fn a_rise_of_more_than_a_twentieth_is_wrong_and_a_fall_is_told() {
        let counts = agreed(&[("dearer", 105.1, 0.0), ("same", 104.9, 0.0), ("cheaper", 95.0, 0.0), ("new", 1.0, 0.0)]);
        let before =
            agreed(&[("dearer", 100.0, 0.0), ("same", 100.0, 0.0), ("cheaper", 100.0, 0.0), ("gone", 1.0, 0.0)]);
        let verdict = before.compare(&counts.counts);
        assert_eq!(verdict.cheaper, ["cheaper"]);
        let expected = ["dearer takes 105 instructions, agreed were 100 (+5.1 %)", "new is new", "gone is gone"];
        assert_eq!(verdict.wrong, expected);
    }

    #[test]
    fn an_allocation_more_in_a_hundred_messages_is_wrong_however_few_instructions_it_takes() {
        let counts = agreed(&[("more", 100.0, 0.131), ("same", 100.0, 0.125), ("less", 100.0, 0.1)]);
        let verdict =
            agreed(&[("more", 100.0, 0.12), ("same", 100.0, 0.12), ("less", 100.0, 0.12)]).compare(&counts.counts);
        assert_eq!(verdict.wrong, ["more takes 0.131 allocations, agreed were 0.120"]);
        assert_eq!(verdict.cheaper, ["less"]);
    }

    #[test]
    fn a_function_is_charged_for_itself_and_not_for_what_it_calls() {
        let profile = "fl=(1) a.rs\nfn=(1) outer\n1 10\ncfn=(2) inner\ncalls=1 5\n+1 100\n+2 3\nfi=(2) b.rs\n* 4\n\
                       fn=(2)\n5 100\n\ntotals: 117\n";
        assert_eq!(by_function(profile), [("inner".to_owned(), 100), ("outer".to_owned(), 17)]);
        assert_eq!(total(profile).unwrap(), 117);
    }

    #[test]
    fn a_count_of_nothing_is_an_error() {
        assert!(total("totals: 0\n").is_err());
    }
}
