//! `leveret bench store`: what the store promises, measured on servers that it starts itself.
//!
//! Each measurement has a server and a data directory of its own, in `--dir`, and leaves nothing behind. A figure is
//! held against its target; the command fails if one is missed, after all have been measured.

mod load;
mod measurement;
mod own_server;
mod progress;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::figures::table;
use super::say;

/// How much to measure, and where the result goes.
#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Measure at full size: 100 million messages in one queue, 4 GB read back, 200 million settled
    #[arg(long)]
    full: bool,
    /// Measure only these
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<Subject>,
    /// Where to make the data directories: the disk to measure [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// Write the table as Markdown, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// What can be measured.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Memory of ready messages in one queue; purge and deletion
    Ready,
    /// Memory of ready messages that are interleaved over 1,000 queues
    Interleaved,
    /// Memory of deliveries that are never acknowledged
    Unacked,
    /// Time to start, cleanly and after SIGKILL
    Start,
    /// Messages that expire all at once, and what publishers notice of it
    Expiry,
    /// Reading a backlog back, and what publishers notice of it
    Backlog,
    /// Disk that a forgotten message holds back
    Reclaim,
    /// Bytes written for each byte published
    Amplification,
}

/// One number, and what it should be.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    Below(f64),
    AtLeast(f64),
}

/// Measures, prints, and fails when a target is missed.
pub(super) fn run(flags: &Flags) -> Result<()> {
    let dir = flags.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut figures = Vec::new();
    for &subject in Subject::value_variants() {
        if flags.only.is_empty() || flags.only.contains(&subject) {
            let measured = measurement::measure(subject, &dir, flags.full).with_context(|| format!("{subject:?}"))?;
            for figure in &measured {
                say(&figure.cells().join("  "));
            }
            figures.extend(measured);
        }
    }
    let header = ["figure", "measured", "target", ""].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(header).chain(figures.iter().map(Figure::cells)).collect();
    if let Some(file) = &flags.markdown {
        fs::write(file, markdown(&rows)).with_context(|| file.display().to_string())?;
    }
    let mut stdout = io::stdout();
    if flags.json {
        let figures: Vec<_> = figures.iter().map(Figure::json).collect();
        writeln!(stdout, "{}", json!({"load": "store", "full": flags.full, "figures": figures}))?;
    } else {
        stdout.write_all(table(&rows).as_bytes())?;
    }
    let missed = figures.iter().filter(|figure| figure.is_met() == Some(false)).count();
    ensure!(missed == 0, "{missed} of {} figures miss their target", figures.len());
    Ok(())
}

impl Figure {
    /// A figure that nothing is asked of.
    fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, target: None }
    }

    fn below(self, limit: f64) -> Self {
        Self { target: Some(Target::Below(limit)), ..self }
    }

    fn at_least(self, limit: f64) -> Self {
        Self { target: Some(Target::AtLeast(limit)), ..self }
    }

    fn is_met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::Below(limit) => self.value < limit,
            Target::AtLeast(limit) => self.value >= limit,
        })
    }

    /// Name, value, target and verdict.
    fn cells(&self) -> Vec<String> {
        let shown = |value: f64| match (value, self.unit) {
            (value, "/s") => format!("{}/s", crate::serve::thousands(value.round() as u64)),
            (value, unit) if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0} {unit}"),
            (value, unit) => format!("{value:.2} {unit}"),
        };
        let target = match self.target {
            Some(Target::Below(limit)) => format!("< {}", shown(limit)),
            Some(Target::AtLeast(limit)) => format!("≥ {}", shown(limit)),
            None => String::new(),
        };
        let verdict = self.is_met().map_or("", |is_met| if is_met { "pass" } else { "FAIL" });
        vec![self.name.clone(), shown(self.value), target, verdict.to_owned()]
    }

    fn json(&self) -> Value {
        let (below, at_least) = match self.target {
            Some(Target::Below(limit)) => (Some(limit), None),
            Some(Target::AtLeast(limit)) => (None, Some(limit)),
            None => (None, None),
        };
        json!({
            "figure": self.name,
            "value": self.value,
            "unit": self.unit,
            "below": below,
            "at_least": at_least,
            "is_met": self.is_met(),
        })
    }
}

/// The rows as a table, the first as its head.
fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (row, cells) in rows.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if row == 0 {
            text.push_str("| --- | ---: | ---: | --- |\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_target() {
        let memory = Figure::new("memory", 99.5, "MiB");
        assert_eq!(memory.clone().below(100.0).cells(), ["memory", "99.50 MiB", "< 100 MiB", "pass"]);
        assert_eq!(memory.clone().below(99.0).is_met(), Some(false));
        assert_eq!(memory.clone().at_least(100.0).is_met(), Some(false));
        assert_eq!(memory.is_met(), None);
        assert_eq!(Figure::new("rate", 12_345.6, "/s").cells()[1], "12,346/s");
    }

    #[test]
    fn a_table_is_markdown() {
        let rows = [vec!["figure".to_owned(), "measured".to_owned()], vec!["a".to_owned(), "1 s".to_owned()]];
        assert_eq!(markdown(&rows), "| figure | measured |\n| --- | ---: | ---: | --- |\n| a | 1 s |\n");
    }
}
