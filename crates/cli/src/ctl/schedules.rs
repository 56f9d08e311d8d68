//! Commands for schedules, which `rabbitmqctl` does not have.

use super::Screen;
use super::api::{Answer, Api, encoded};
use super::arguments::{Line, Options};
use super::commands::done;
use super::failure::{self, Failure};
use super::formats;
use serde_json::{Value, json};

pub(super) fn set_schedule(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let [name, definition] = &line.operands[..] else { return Ok(()) };
    let Ok(definition @ Value::Object(_)) = serde_json::from_str(definition) else {
        return Err(Failure::error(failure::USAGE, "the definition of a schedule is a JSON object"));
    };
    ask(line, screen, "set_schedule", &format!("Setting schedule '{name}'"), |api| {
        api.put(&path(options, name), &definition)
    })
}

pub(super) fn delete_schedule(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, name) = (&line.options, &line.operands[0]);
    ask(line, screen, "delete_schedule", &format!("Deleting schedule '{name}'"), |api| {
        api.send("DELETE", &path(options, name), &[])
    })
}

pub(super) fn pause_schedule(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, name) = (&line.options, &line.operands[0]);
    ask(line, screen, "pause_schedule", &format!("Pausing schedule '{name}'"), |api| {
        api.put(&format!("{}/pause", path(options, name)), &json!({}))
    })
}

pub(super) fn resume_schedule(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, name) = (&line.options, &line.operands[0]);
    ask(line, screen, "resume_schedule", &format!("Resuming schedule '{name}'"), |api| {
        api.put(&format!("{}/resume", path(options, name)), &json!({}))
    })
}

pub(super) fn fire_schedule(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, name) = (&line.options, &line.operands[0]);
    let api = Api::new("fire_schedule", options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Firing schedule '{name}' in vhost '{}' ...", options.vhost()))?;
    let answer = api.post(&format!("{}/fire", path(options, name)), &json!({}))?;
    succeeded(&answer, name)?;
    match answer.json()["reason"].as_str() {
        Some(reason) => Err(Failure::error(failure::DATA, reason)),
        None => formats::print_message(screen, options, "1 message was published"),
    }
}

fn ask(
    line: &Line,
    screen: &mut Screen,
    command: &str,
    doing: &str,
    ask: impl FnOnce(&Api) -> Result<Answer, Failure>,
) -> Result<(), Failure> {
    let options = &line.options;
    let api = Api::new(command, options, None)?;
    api.reach()?;
    screen.banner(options, &format!("{doing} in vhost '{}' ...", options.vhost()))?;
    succeeded(&ask(&api)?, &line.operands[0])?;
    done(&api, options, screen)
}

fn succeeded(answer: &Answer, name: &str) -> Result<(), Failure> {
    match answer.status {
        200..=299 => Ok(()),
        404 => Err(Failure::error(failure::DATA, format!("there is no schedule '{name}'"))),
        400 => Err(Failure::error(failure::USAGE, answer.reason())),
        _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
    }
}

fn path(options: &Options, name: &str) -> String {
    format!("/schedules/{}/{}", encoded(options.vhost()), encoded(name))
}
