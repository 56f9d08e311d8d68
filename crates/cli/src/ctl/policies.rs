//! Policies are set and cleared.

use super::Screen;
use super::api::{Api, encoded};
use super::arguments::Line;
use super::commands::done;
use super::failure::{self, Failure};
use serde_json::{Value, json};

/// What differs between the two kinds.
struct Kind {
    set: &'static str,
    clear: &'static str,
    resource: &'static str,
    /// What the commands say they set, and clear.
    titles: (&'static str, &'static str),
}

const USER: Kind =
    Kind { set: "set_policy", clear: "clear_policy", resource: "policies", titles: ("policy", "policy") };
const OPERATOR: Kind = Kind {
    set: "set_operator_policy",
    clear: "clear_operator_policy",
    resource: "operator-policies",
    titles: ("operator policy override", "operator policy"),
};

pub(super) fn set_policy(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    USER.set(line, screen)
}

pub(super) fn set_operator_policy(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    OPERATOR.set(line, screen)
}

pub(super) fn clear_policy(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    USER.clear(line, screen)
}

pub(super) fn clear_operator_policy(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    OPERATOR.clear(line, screen)
}

impl Kind {
    fn set(&self, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
        let options = &line.options;
        let [name, pattern, definition] = &line.operands[..] else { return Ok(()) };
        let api = Api::new(self.set, options, None)?;
        api.reach()?;
        let (title, priority, vhost) = (self.titles.0, options.priority, options.vhost());
        screen.banner(
            options,
            &format!(
                "Setting {title} \"{name}\" for pattern \"{pattern}\" to \"{definition}\" with priority \"{priority}\" \
                 for vhost \"{vhost}\" ..."
            ),
        )?;
        let Ok(definition @ Value::Object(_)) = serde_json::from_str(definition) else {
            return Err(Failure::error(failure::UNAVAILABLE, "JSON decoding error. The definition is no JSON object"));
        };
        let body = json!({
            "pattern": pattern,
            "definition": definition,
            "priority": priority,
            "apply-to": options.apply_to.as_deref().unwrap_or("all"),
        });
        let answer = api.put(&self.path(line, name), &body)?;
        match answer.status {
            201 | 204 => done(&api, options, screen),
            404 => Err(Failure::no_vhost(vhost)),
            _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason().trim_end())),
        }
    }

    fn clear(&self, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
        let (options, name) = (&line.options, &line.operands[0]);
        let api = Api::new(self.clear, options, None)?;
        api.reach()?;
        let banner = format!("Clearing {} \"{name}\" on vhost \"{}\" ...", self.titles.1, options.vhost());
        screen.banner(options, &banner)?;
        let answer = api.send("DELETE", &self.path(line, name), &[])?;
        match answer.status {
            204 => done(&api, options, screen),
            404 => Err(Failure::error(failure::UNAVAILABLE, "Parameter does not exist")),
            _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
        }
    }

    fn path(&self, line: &Line, name: &str) -> String {
        format!("/{}/{}/{}", self.resource, encoded(line.options.vhost()), encoded(name))
    }
}
