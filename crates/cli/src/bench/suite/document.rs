//! A suite's raw data as a Markdown document, with its charts beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::outcome::Unit;
use super::super::report::{self, Chart};
use super::rows::{Group, limit_of};

/// Writes the raw data, the charts and the document.
pub(super) fn write(out: &Path, data: &Value) -> Result<()> {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    super::write(&out.with_extension("json"), data)?;
    let charts = report::of_suite(data);
    for chart in &charts {
        let file = out.with_file_name(format!("{stem}-{}.svg", chart.name));
        fs::write(&file, &chart.svg).with_context(|| file.display().to_string())?;
    }
    fs::write(out, text(&stem, data, &charts)).with_context(|| out.display().to_string())
}

/// The document.
fn text(stem: &str, data: &Value, charts: &[Chart]) -> String {
    let mut text = "# Benchmarks\n\n".to_owned();
    put(
        &mut text,
        format_args!(
            "Written by `leveret bench suite`. Each row is the command that stands with it, run against each \
         broker in turn (rounds: {}, of {} s); the median is shown. The processor time is the broker's, user and system, with all its processes, \
         over the run, divided by the messages that passed it (the larger of published and consumed). The load generator \
         runs on the same machine. Raw data: [{stem}.json]({stem}.json).\n\n",
            data["rounds"], data["seconds"]
        ),
    );
    add_machine(&mut text, data);
    let own = list(&data["rows"]).first().and_then(|row| row["results"][0]["median"]["generator_cpu_us"].as_f64());
    if let Some(own) = own {
        put(&mut text, format_args!("The load generator itself took {own:.2} µs a message in the first row.\n\n"));
    }
    for chart in charts {
        put(&mut text, format_args!("![{}]({stem}-{}.svg)\n\n", chart.title, chart.name));
    }
    for group in Group::ALL {
        add_group(&mut text, data, group);
    }
    add_limit(&mut text, data);
    add_spread(&mut text, data);
    text
}

fn add_machine(text: &mut String, data: &Value) {
    let machine = &data["machine"];
    let known = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    put(
        text,
        format_args!(
            "Measured on {}: {} processors ({}), {} GiB of memory, {}, data on {}.\n",
            known(&machine["day"]),
            machine["processors"],
            known(&machine["processor"]),
            machine["memory_gib"],
            known(&machine["system"]),
            known(&machine["file_system"])
        ),
    );
    for note in list(&data["notes"]) {
        put(text, format_args!("{}\n", note.as_str().unwrap_or_default()));
    }
    text.push_str("\n| name | broker | started as |\n| --- | --- | --- |\n");
    for contender in list(&data["contenders"]) {
        let origin = contender["start"].as_str().map_or_else(
            || format!("ran at {}", contender["url"].as_str().unwrap_or("?")),
            |command| format!("`{}`", command.replace('|', "\\|")),
        );
        let name = contender["name"].as_str().unwrap_or_default();
        put(text, format_args!("| {name} | {} | {origin} |\n", version(data, name)));
    }
    text.push('\n');
}

/// What a broker says it is, from the first row that tells.
fn version<'a>(data: &'a Value, contender: &str) -> &'a str {
    let results = list(&data["rows"]).iter().flat_map(|row| list(&row["results"]));
    let mut told = results.filter(|result| result["contender"] == contender).filter_map(|it| it["broker"].as_str());
    told.find(|broker| !broker.is_empty()).unwrap_or("?")
}

fn add_group(text: &mut String, data: &Value, group: Group) {
    let rows: Vec<_> = list(&data["rows"]).iter().filter(|row| row["group"] == group.title()).collect();
    if rows.is_empty() {
        return;
    }
    let names: Vec<_> = list(&data["contenders"]).iter().filter_map(|it| it["name"].as_str()).collect();
    put(
        text,
        format_args!("## {}\n\n| | {} | × best other | share of the limit | aim |\n", group.title(), names.join(" | ")),
    );
    put(text, format_args!("| --- |{} ---: | ---: | --- |\n", " ---: |".repeat(names.len())));
    for row in &rows {
        let cells: Vec<_> = list(&row["results"]).iter().map(|result| cell(row, result)).collect();
        let share = share(data, row).map_or_else(String::new, |share| format!("{:.0} %", share * 100.0));
        let ratio = ratio(row).map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        put(
            text,
            format_args!(
                "| {} | {} | {ratio} | {share} | {} |\n",
                row["title"].as_str().unwrap_or_default(),
                cells.join(" | "),
                row["aim"].as_str().unwrap_or_default()
            ),
        );
    }
    text.push('\n');
    if let Some(row) = rows.iter().find(|row| list(&row["shown"]).len() > 2) {
        put(
            text,
            format_args!(
                "Numbers in a cell are, for “{}”: {}.\n\n",
                row["title"].as_str().unwrap_or_default(),
                names_of(row)
            ),
        );
    }
}

/// A row's figures of one broker.
fn cell(row: &Value, result: &Value) -> String {
    if let Some(failure) = result["failure"].as_str() {
        let said = failure.lines().next().unwrap_or_default().replace('|', "/");
        return format!("failed: {said}");
    }
    let shown = list(&row["shown"]).iter().filter_map(Value::as_str).filter_map(|key| {
        let value = result["median"][key].as_f64()?;
        Some(Unit::of_key(result["units"][key].as_str()?).show(value).replace("/message", ""))
    });
    shown.collect::<Vec<_>>().join(" · ")
}

fn names_of(row: &Value) -> String {
    let keys = list(&row["shown"]).iter().filter_map(Value::as_str);
    let named = keys.filter_map(|key| list(&row["results"]).iter().find_map(|result| result["names"][key].as_str()));
    named.collect::<Vec<_>>().join(" · ")
}

/// By how much the first broker's first figure is better than the best of all others; below 1 it is worse. `it-…` is
/// `it` started in another way, and no other.
fn ratio(row: &Value) -> Option<f64> {
    let key = row["shown"][0].as_str()?;
    let results = list(&row["results"]);
    let variants = format!("{}-", results.first()?["contender"].as_str()?);
    let is_variant = |result: &&Value| result["contender"].as_str().is_some_and(|it| it.starts_with(&variants));
    let results: Vec<_> = results.iter().filter(|result| !is_variant(result)).collect();
    let unit = Unit::of_key(results.first()?["units"][key].as_str()?);
    let values: Vec<_> = results.iter().map(|result| result["median"][key].as_f64()).collect();
    let (first, others) = values.split_first()?;
    let others = others.iter().flatten().copied();
    let (first, best) = if unit.is_more_better() {
        ((*first)?, others.reduce(f64::max)?)
    } else {
        (others.reduce(f64::min)?, (*first)?)
    };
    (best > 0.0).then(|| first / best)
}

/// The first broker's first figure as a share of what the machine does without a broker.
fn share(data: &Value, row: &Value) -> Option<f64> {
    let limit = data["limit"][limit_of(row["id"].as_str()?)?].as_f64()?;
    let (key, result) = (row["shown"][0].as_str()?, &row["results"][0]);
    let value = result["median"][key].as_f64()?;
    let unit = Unit::of_key(result["units"][key].as_str()?);
    let share = if unit.is_more_better() { value / limit } else { limit / value };
    share.is_finite().then_some(share)
}

fn add_limit(text: &mut String, data: &Value) {
    let Some(limit) = data["limit"].as_object().filter(|limit| !limit.is_empty()) else { return };
    text.push_str(
        "## The limit\n\nWhat the same machine does with no broker in it (`leveret bench limit`): a relay that takes the \
         same octets from the same producer and writes as many to the same consumer, a thread that answers a client that waits \
         for each answer, with a sync of the disk before it and without, and a file that is written with the same sizes and \
         synced.\n\n| figure | |\n| --- | ---: |\n",
    );
    for (key, value) in limit {
        let unit = match key.as_str() {
            "disk_bytes_per_s" => Unit::BytesPerSecond,
            key if key.ends_with("_per_s") => Unit::PerSecond,
            key if key.ends_with("_ns") => Unit::Ns,
            _ => Unit::CpuUs,
        };
        put(text, format_args!("| `{key}` | {} |\n", unit.show(value.as_f64().unwrap_or_default())));
    }
    text.push('\n');
}

/// Each row's command, and how far its runs lie apart.
fn add_spread(text: &mut String, data: &Value) {
    text.push_str(
        "## Commands and spread\n\nThe first figure of each row: its least and its greatest over the runs.\n\n",
    );
    text.push_str("| command | figure | least to greatest |\n| --- | --- | --- |\n");
    for row in list(&data["rows"]) {
        let Some(key) = row["shown"][0].as_str() else { continue };
        let spreads = list(&row["results"]).iter().filter_map(|result| {
            let unit = Unit::of_key(result["units"][key].as_str()?);
            let values = || list(&result["runs"]).iter().filter_map(|run| run["figures"][key].as_f64());
            let (least, greatest) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
            Some(format!("{} {} to {}", result["contender"].as_str()?, unit.show(least), unit.show(greatest)))
        });
        let name = list(&row["results"]).iter().find_map(|result| result["names"][key].as_str()).unwrap_or(key);
        put(
            text,
            format_args!(
                "| `{}` | {name} | {} |\n",
                row["command"].as_str().unwrap_or_default(),
                spreads.collect::<Vec<_>>().join("; ")
            ),
        );
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn put(text: &mut String, piece: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(piece);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data() -> Value {
        let result = |name: &str, value: f64| {
            json!({
                "contender": name,
                "broker": "Broker 1.0",
                "median": {"consumed_per_s": value},
                "units": {"consumed_per_s": "per_second"},
                "names": {"consumed_per_s": "consumed"},
                "runs": [{"figures": {"consumed_per_s": value}}],
            })
        };
        json!({
            "rounds": 1,
            "seconds": 1,
            "machine": {"processors": 2, "day": "2026-11-28"},
            "notes": ["A note."],
            "contenders": [{"name": "ours", "start": "serve"}, {"name": "theirs", "url": "127.0.0.1:5672"}],
            "limit": {"relay_16_per_s": 6000.0},
            "rows": [{
                "id": "small",
                "group": "Messages through one queue",
                "title": "16 B",
                "command": "leveret bench throughput",
                "aim": "fast",
                "shown": ["consumed_per_s"],
                "results": [result("ours", 3000.0), result("theirs", 2000.0)],
            }],
        })
    }

    #[test]
    fn a_row_shows_figures_ratio_and_share() {
        let text = text("benchmarks", &data(), &[]);
        assert!(text.contains("| 16 B | 3,000/s | 2,000/s | 1.50 | 50 % | fast |"), "{text}");
        assert!(text.contains("| ours | Broker 1.0 | `serve` |") && text.contains("A note."), "{text}");
        assert!(text.contains("| `leveret bench throughput` | consumed | ours 3,000/s to 3,000/s; theirs"), "{text}");
    }

    #[test]
    fn the_same_broker_started_in_another_way_is_no_other() {
        let mut data = data();
        let mut variant = data["rows"][0]["results"][0].clone();
        variant["contender"] = json!("ours-slow");
        data["rows"][0]["results"].as_array_mut().unwrap().push(variant);
        let text = text("benchmarks", &data, &[]);
        assert!(text.contains("| 16 B | 3,000/s | 2,000/s | 3,000/s | 1.50 | 50 % | fast |"), "{text}");
    }

    #[test]
    fn a_failure_is_told_in_its_cell() {
        let mut data = data();
        data["rows"][0]["results"][1] = json!({"contender": "theirs", "failure": "no connection\nat all", "runs": []});
        let text = text("benchmarks", &data, &[]);
        assert!(text.contains("| 16 B | 3,000/s | failed: no connection |  | 50 % | fast |"), "{text}");
    }
}
