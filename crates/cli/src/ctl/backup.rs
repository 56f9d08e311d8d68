//! `backup`: a copy of the data directory, which the server makes while it runs.

use super::Screen;
use super::api::Api;
use super::arguments::Line;
use super::commands::{done, pause};
use super::failure::{self, Failure};
use super::formats;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

pub(super) fn run(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, wanted) = (&line.options, &line.operands[0]);
    // The server's working directory is another.
    let directory = std::path::absolute(wanted)
        .map_err(|error| Failure::error(failure::USAGE, format!("'{wanted}' cannot be a directory: {error}")))?;
    let Some(directory) = directory.to_str().map(str::to_owned) else {
        return Err(Failure::error(failure::USAGE, "the directory's full name is not UTF-8"));
    };
    let api = Api::new("backup", options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Backing up the data directory to {directory} ..."))?;
    let answer = api.post("/backup", &json!({"directory": &directory}))?;
    if answer.status != 202 {
        return Err(Failure::error(failure::UNAVAILABLE, answer.reason()));
    }
    let shows = io::stderr().is_terminal() && !options.quiet && !options.silent;
    loop {
        let state = api.get("/backup")?.unwrap_or_default();
        if state["directory"] != *directory {
            return Err(Failure::error(
                failure::UNAVAILABLE,
                "the server was started again meanwhile; no backup was made",
            ));
        }
        let word = state["state"].as_str().unwrap_or_default();
        if shows {
            let end = if word == "running" { "\x1b[K" } else { "\x1b[K\r" };
            // Whoever closed it does not look.
            let _unseen = write!(io::stderr(), "\r{}{end}", progress(&state));
        }
        match word {
            "running" => pause(POLL),
            "done" => break,
            _ => {
                let reason = state["reason"].as_str().unwrap_or("the server does not say why");
                return Err(Failure::error(failure::UNAVAILABLE, format!("no backup was made: {reason}")));
            }
        }
    }
    if options.formatter.is_for_machines() {
        return done(&api, options, screen);
    }
    let text = format!("The backup is in {directory}; `leveret serve --data-dir {directory}` starts it");
    formats::print_message(screen, options, &text)
}

fn progress(state: &Value) -> String {
    let bytes = |key: &str| state[key].as_u64().unwrap_or_default();
    let (copied, total) = (bytes("copied_bytes"), bytes("total_bytes"));
    format!("{} % of {} MiB", copied.saturating_mul(100) / total.max(1), total >> 20)
}

const POLL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_as_a_share() {
        let state = json!({"copied_bytes": 3 << 20, "total_bytes": 4 << 20});
        assert_eq!(progress(&state), "75 % of 4 MiB");
        assert_eq!(progress(&json!({})), "0 % of 0 MiB");
    }
}
