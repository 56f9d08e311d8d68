//! `leveret bench report`: results, as the other commands print them with `--json`, drawn as SVG charts.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use super::chart::{self, Bar, Curve, Panel};
use super::outcome::Unit;
use super::say;

/// What to draw.
#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Results: what a load printed with --json, or the raw data of a suite
    #[arg(value_name = "FILE.json", required = true)]
    files: Vec<PathBuf>,
    /// The folder for the charts [default: beside the first file]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A chart, and what to call its file after the name of the results.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    pub(super) name: &'static str,
    /// What it shows, for those who cannot see it.
    pub(super) title: String,
    pub(super) svg: String,
}

/// Draws, and says what is written.
pub(super) fn run(flags: &Flags) -> Result<()> {
    let mut files = Vec::new();
    for file in &flags.files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let data: Value = serde_json::from_str(&text).with_context(|| {
            format!("{} is no JSON: make it by a command of leveret bench with --json", file.display())
        })?;
        files.push((file.file_stem().unwrap_or_default().to_string_lossy().into_owned(), data));
    }
    let first = &flags.files[0];
    let folder = flags.out.as_deref().or(first.parent()).unwrap_or(first);
    let stem = first.file_stem().unwrap_or_default().to_string_lossy();
    let mut charts = Vec::new();
    for (_, data) in &files {
        charts.extend(of_suite(data));
    }
    if charts.is_empty() {
        charts = of_loads(&files);
    }
    ensure!(!charts.is_empty(), "there is nothing to draw in it: neither a suite's rows nor a load's brokers");
    for chart in charts {
        let file = folder.join(format!("{stem}-{}.svg", chart.name));
        fs::write(&file, chart.svg).with_context(|| file.display().to_string())?;
        say(&format!("written: {}", file.display()));
    }
    Ok(())
}

/// The charts of a suite's raw data: none of anything else.
pub(super) fn of_suite(data: &Value) -> Vec<Chart> {
    let note = format!(
        "{} {} s each, brokers in turn; {} processors",
        if data["rounds"] == 1 { "One run of".to_owned() } else { format!("Medians of {} runs of", data["rounds"]) },
        data["seconds"],
        data["machine"]["processors"]
    );
    let groups = |names: &[&str]| {
        let is_in = |row: &&Value| row["group"].as_str().is_some_and(|group| names.contains(&group));
        rows(data).filter(is_in).collect::<Vec<_>>()
    };
    let messages = groups(&["Messages through one queue", "Durable messages and backlogs"]);
    let topology = groups(&["Connections, queues and bindings"]);
    let scale = groups(&["Scale"]);
    let is_rate = |_: &str, unit| unit == Unit::PerSecond;
    let is_cpu = |_: &str, unit| unit == Unit::CpuUs;
    let is_footprint = |_: &str, unit: Unit| matches!(unit, Unit::Bytes | Unit::Seconds);
    let bars = |name, title: &str, better: &str, panels: Vec<Panel>| {
        let svg = chart::bars(title, &format!("{better} is better. {note}"), &panels);
        (!panels.is_empty()).then(|| Chart { name, title: title.to_owned(), svg })
    };
    let latency = latency(data, &note);
    [
        bars("throughput", "Messages per second", "More", panels(data, &messages, is_rate, Pick::First)),
        bars("cpu", "The broker's processor time per message", "Less", panels(data, &messages, is_cpu, Pick::First)),
        latency,
        bars(
            "topology",
            "Connections, queues and bindings per second",
            "More",
            panels(data, &topology, is_rate, Pick::First),
        ),
        bars("footprint", "Memory and time to start", "Less", {
            let both: Vec<_> = messages.iter().chain(&topology).copied().collect();
            panels(data, &both, is_footprint, Pick::All)
        }),
        bars("scale", "Messages per second as things grow", "More", panels(data, &scale, is_rate, Pick::First)),
        bars(
            "scale-cpu",
            "Processor time per message as things grow",
            "Less",
            panels(data, &scale, is_cpu, Pick::First),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Which of a row's figures are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pick {
    First,
    All,
}

fn rows(data: &Value) -> impl Iterator<Item = &Value> {
    data["rows"].as_array().into_iter().flatten()
}

/// A panel for each figure shown in a row that is wanted by its key and unit.
fn panels(data: &Value, rows: &[&Value], is_wanted: impl Fn(&str, Unit) -> bool, pick: Pick) -> Vec<Panel> {
    let mut panels = Vec::new();
    for row in rows {
        let title = row["title"].as_str().unwrap_or_default();
        let shown = row["shown"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let all = shown.filter_map(|key| {
            let results = || row["results"].as_array().into_iter().flatten();
            let of = |field: &str| results().find_map(|result| Some(result[field][key].as_str()?.to_owned()));
            let unit = Unit::of_key(&of("units")?);
            is_wanted(key, unit).then_some(())?;
            let bars: Vec<_> = results()
                .filter_map(|result| {
                    let (name, value) = (result["contender"].as_str()?, result["median"][key].as_f64()?);
                    let shown = unit.show(value).replace("/message", "");
                    Some(Bar { name: name.to_owned(), colour: colour(data, name), value, shown })
                })
                .collect();
            let title = match pick {
                Pick::First if row["shown"][0] == key || unit == Unit::CpuUs => title.to_owned(),
                _ => format!("{}: {}", title.split(':').next().unwrap_or(title), of("names")?),
            };
            (!bars.is_empty()).then_some(Panel { title, bars })
        });
        match pick {
            Pick::First => panels.extend(all.take(1)),
            Pick::All => panels.extend(all),
        }
    }
    panels
}

fn colour(data: &Value, name: &str) -> usize {
    let contenders = data["contenders"].as_array();
    contenders.and_then(|all| all.iter().position(|it| it["name"] == name)).unwrap_or(0)
}

/// The curves of the first row that has distributions: of each broker the run whose p99 is in the middle.
fn latency(data: &Value, note: &str) -> Option<Chart> {
    let row = rows(data).find(|row| row["results"][0]["runs"][0]["distribution_ns"].is_array())?;
    let curves = row["results"].as_array()?.iter().filter_map(|result| {
        let mut runs: Vec<_> = result["runs"].as_array()?.iter().collect();
        runs.sort_by(|one, other| p99(one).total_cmp(&p99(other)));
        let name = result["contender"].as_str()?;
        Some(Curve { name: name.to_owned(), colour: colour(data, name), points: points(runs.get(runs.len() / 2)?) })
    });
    let curves: Vec<Curve> = curves.collect();
    let title = format!("Latency: {}", row["title"].as_str()?);
    let svg = chart::percentiles(&title, &format!("Less is better. {note}"), &curves);
    Some(Chart { name: "latency", title, svg })
}

fn p99(run: &Value) -> f64 {
    run["figures"]["latency_p99_ns"].as_f64().unwrap_or(f64::INFINITY)
}

fn points(run: &Value) -> Vec<(f64, f64)> {
    let points = run["distribution_ns"].as_array().into_iter().flatten();
    points.filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?))).collect()
}

/// The charts of single loads' results: a panel for each figure, a bar for each broker of each file.
fn of_loads(files: &[(String, Value)]) -> Vec<Chart> {
    let brokers: Vec<(String, &Value)> = files
        .iter()
        .flat_map(|(stem, data)| {
            let brokers = data["brokers"].as_array().into_iter().flatten();
            brokers.map(move |broker| (format!("{stem} {}", broker["url"].as_str().unwrap_or_default()), broker))
        })
        .collect();
    let mut panels: Vec<Panel> = Vec::new();
    for (number, (name, broker)) in brokers.iter().enumerate() {
        for (key, value) in broker["figures"].as_object().into_iter().flatten() {
            let (Some(value), Some(unit)) = (value.as_f64(), broker["units"][key].as_str()) else { continue };
            let title = broker["names"][key].as_str().unwrap_or(key);
            let shown = Unit::of_key(unit).show(value);
            let short = name.chars().take(NAME_CHARS).collect();
            let bar = Bar { name: short, colour: number, value, shown };
            match panels.iter_mut().find(|panel| panel.title == title) {
                Some(panel) => panel.bars.push(bar),
                None => panels.push(Panel { title: title.to_owned(), bars: vec![bar] }),
            }
        }
    }
    let mut charts = Vec::new();
    if !panels.is_empty() {
        let title = files.iter().map(|(_, data)| data["load"].as_str().unwrap_or("?")).collect::<Vec<_>>().join(", ");
        charts.push(Chart { name: "figures", svg: chart::bars(&title, "Medians", &panels), title });
    }
    let curves: Vec<_> = brokers
        .iter()
        .enumerate()
        .filter_map(|(colour, (name, broker))| {
            let points = points(broker["runs"].as_array()?.first()?);
            (!points.is_empty()).then(|| Curve { name: name.clone(), colour, points })
        })
        .collect();
    if !curves.is_empty() {
        let svg = chart::percentiles("Latency", "Less is better", &curves);
        charts.push(Chart { name: "latency", title: "Latency".to_owned(), svg });
    }
    charts
}

/// How much of a name fits beside a bar.
const NAME_CHARS: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn suite() -> Value {
        let result = |name: &str, rate: f64| {
            json!({
                "contender": name,
                "median": {"consumed_per_s": rate, "broker_cpu_us": 0.5},
                "units": {"consumed_per_s": "per_second", "broker_cpu_us": "cpu_us_per_message"},
                "names": {"consumed_per_s": "consumed", "broker_cpu_us": "broker CPU"},
                "runs": [{"figures": {"latency_p99_ns": 5.0}, "distribution_ns": [[0.0, 10.0], [0.9, 100.0]]}],
            })
        };
        json!({
            "rounds": 3,
            "seconds": 5,
            "machine": {"processors": 2},
            "contenders": [{"name": "ours"}, {"name": "theirs"}],
            "rows": [{
                "group": "Messages through one queue",
                "title": "16 B",
                "shown": ["consumed_per_s", "broker_cpu_us"],
                "results": [result("ours", 2000.0), result("theirs", 1000.0)],
            }],
        })
    }

    #[test]
    fn a_suite_becomes_charts_of_what_it_measured() {
        let charts = of_suite(&suite());
        assert_eq!(charts.iter().map(|chart| chart.name).collect::<Vec<_>>(), ["throughput", "cpu", "latency"]);
        assert!(charts[0].svg.contains("2,000/s") && charts[0].svg.contains("theirs"));
        assert!(charts[1].svg.contains("0.50 µs"));
        assert!(charts[2].svg.contains("polyline"));
        assert_eq!(of_suite(&json!({})), []);
    }

    #[test]
    fn loads_become_a_panel_for_each_figure() {
        let load = json!({
            "load": "throughput",
            "brokers": [{
                "url": "127.0.0.1:5672",
                "figures": {"published_per_s": 7.0},
                "units": {"published_per_s": "per_second"},
                "names": {"published_per_s": "published"},
                "runs": [],
            }],
        });
        let charts = of_loads(&[("one".to_owned(), load.clone()), ("two".to_owned(), load)]);
        assert_eq!(charts.len(), 1);
        assert_eq!(charts[0].svg.matches("7/s").count(), 2);
    }
}
