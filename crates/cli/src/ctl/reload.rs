//! `reload_config`: the server reads its configuration anew.

use super::Screen;
use super::api::{Api, encoded};
use super::arguments::Line;
use super::commands::node;
use super::failure::{self, Failure};
use super::formats::Formatter;
use serde_json::Value;

pub(super) fn run(command: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let api = Api::new(command, options, None)?;
    let name = node(&api)?;
    screen.banner(options, &format!("Reloading the configuration of {name} ..."))?;
    let answer = api.post(&format!("/nodes/{}/reload", encoded(&name)), &Value::Null)?;
    if answer.status != 200 {
        return Err(Failure::error(failure::CONFIGURATION, answer.reason()));
    }
    let reloaded = answer.json();
    if matches!(options.formatter, Formatter::Json | Formatter::JsonStream) {
        return screen.line(&reloaded.to_string());
    }
    let list = |key: &str| {
        let keys = reloaded[key].as_array().into_iter().flatten();
        keys.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    match list("changed") {
        changed if changed.is_empty() => screen.line("No key has changed; certificates were read anew")?,
        changed => screen.line(&format!("Changed: {}", changed.join(", ")))?,
    }
    for warning in list("warnings") {
        screen.line(&format!("Warning: {warning}"))?;
    }
    match list("restart") {
        restart if restart.is_empty() => Ok(()),
        restart => screen.line(&format!("These take a restart: {}", restart.join(", "))),
    }
}
