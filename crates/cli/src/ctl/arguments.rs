//! The command line: options anywhere, before the command or after it, as `rabbitmqctl` takes them.

use super::commands::Command;
use super::failure::{self, Failure};
use super::formats::Formatter;
use std::path::PathBuf;
use std::time::Duration;

/// A command line, taken apart.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The first argument that is no option.
    pub(super) command: Option<String>,
    /// The others.
    pub(super) operands: Vec<String>,
    pub(super) options: Options,
    /// Options that only some commands have, by name.
    only_for: Vec<&'static str>,
    /// Options that mean nothing, with their values.
    bad: Vec<(String, String)>,
    /// All arguments as given.
    pub(super) given: Vec<String>,
}

/// What the options say.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) vhost: Option<String>,
    pub(super) quiet: bool,
    pub(super) silent: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) formatter: Formatter,
    pub(super) no_table_headers: bool,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) url: Option<String>,
    pub(super) asks_for_help: bool,
    pub(super) if_empty: bool,
    pub(super) if_unused: bool,
    /// Only queues whose node is away: there are none.
    pub(super) offline: bool,
    pub(super) global: bool,
    pub(super) limit: usize,
    pub(super) delay: Duration,
    /// Those that only some commands have, as given.
    rare: Vec<(&'static str, String)>,
    pub(super) priority: i64,
    pub(super) apply_to: Option<String>,
}

impl Options {
    /// The vhost that the command is about.
    pub(super) fn vhost(&self) -> &str {
        self.vhost.as_deref().unwrap_or("/")
    }

    /// Whether such an option is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// All values that it is given.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.rare.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The last of them, a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let number = self.all(name).last().map(str::parse).transpose();
        number.map_err(|_| Failure::error(failure::USAGE, format!("--{name} takes a number")))
    }
}

/// An option: its long name, its letter if it has one, and whether a value follows.
pub(super) struct Switch {
    pub(super) name: &'static str,
    pub(super) letter: Option<char>,
    pub(super) has_value: bool,
    /// Only commands that name it have it.
    pub(super) is_rare: bool,
}

const fn switch(name: &'static str, letter: Option<char>, has_value: bool) -> Switch {
    Switch { name, letter, has_value, is_rare: false }
}

const fn rare(name: &'static str, letter: Option<char>, has_value: bool) -> Switch {
    Switch { name, letter, has_value, is_rare: true }
}

pub(super) const SWITCHES: [Switch; 55] = [
    switch("vhost", Some('p'), true),
    switch("quiet", Some('q'), false),
    switch("silent", Some('s'), false),
    switch("timeout", Some('t'), true),
    // There is one node; scripts name it all the same.
    switch("node", Some('n'), true),
    switch("longnames", Some('l'), false),
    switch("erlang-cookie", None, true),
    switch("formatter", None, true),
    switch("no-table-headers", None, false),
    switch("table-headers", None, false),
    switch("help", Some('?'), false),
    switch("data-dir", None, true),
    switch("url", None, true),
    rare("if-empty", Some('e'), false),
    rare("if-unused", Some('u'), false),
    rare("force", None, false),
    rare("online", None, false),
    rare("offline", None, false),
    rare("local", None, false),
    rare("global", None, false),
    rare("limit", None, true),
    rare("per-connection-delay", None, true),
    rare("count", None, true),
    rare("offset", None, true),
    rare("where", None, true),
    rare("seq", None, true),
    rare("all", None, false),
    rare("unacked", None, false),
    rare("delayed", None, false),
    rare("dlx", None, false),
    rare("to-queue", None, true),
    rare("to-exchange", None, true),
    rare("routing-key", None, true),
    rare("rate", None, true),
    rare("origin", None, true),
    rare("follow", None, false),
    rare("stop", None, false),
    rare("priority", None, true),
    rare("apply-to", None, true),
    rare("address", None, true),
    rare("within", None, true),
    rare("unit", None, true),
    rare("pid", None, true),
    rare("interval", None, true),
    rare("used", None, false),
    rare("watch", None, false),
    rare("wait", None, false),
    rare("no-wait", None, false),
    rare("pre-hashed-password", None, false),
    rare("user", None, true),
    rare("description", None, true),
    rare("tags", None, true),
    rare("default-queue-type", None, true),
    rare("format", None, true),
    rare("skip-if-unchanged", None, false),
];

impl Line {
    /// Another command with the same options, in this vhost if one is given.
    pub(super) fn like(&self, command: &str, vhost: Option<&str>) -> Self {
        let mut options = self.options.clone();
        options.vhost = vhost.map(str::to_owned).or(options.vhost);
        Self { command: Some(command.to_owned()), options, ..Self::default() }
    }

    /// Takes the arguments apart. What is wrong with them is told by [`Self::check`].
    pub(super) fn parse(given: Vec<String>) -> Self {
        let mut line = Self { given, ..Self::default() };
        let mut arguments = line.given.clone().into_iter();
        let mut options_end = false;
        while let Some(argument) = arguments.next() {
            if options_end || argument == "-" || !argument.starts_with('-') {
                match line.command {
                    None => line.command = Some(argument),
                    Some(_) => line.operands.push(argument),
                }
            } else if argument == "--" {
                options_end = true;
            } else {
                line.option(&argument, &mut arguments);
            }
        }
        if line.command.as_deref() == Some("help") && !line.options.asks_for_help {
            line.options.asks_for_help = true;
            line.command = (!line.operands.is_empty()).then(|| line.operands.remove(0));
        }
        line
    }

    fn option(&mut self, argument: &str, rest: &mut impl Iterator<Item = String>) {
        if argument == "--version" && self.command.is_none() {
            self.command = Some("version".to_owned());
            return;
        }
        let (name, mut value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument, None),
        };
        let mut letters = name.strip_prefix('-').unwrap_or_default().chars();
        let letter = letters.next().filter(|_| letters.next().is_none());
        let long = name.strip_prefix("--");
        let is_meant = |switch: &&Switch| long == Some(switch.name) || (letter.is_some() && switch.letter == letter);
        let Some(switch) = SWITCHES.iter().find(is_meant) else {
            self.bad.push((name.to_owned(), value.unwrap_or_default()));
            return;
        };
        if switch.has_value && value.is_none() {
            value = rest.next();
        }
        let value = value.unwrap_or_default();
        if switch.is_rare {
            self.only_for.push(switch.name);
            self.options.rare.push((switch.name, value.clone()));
        }
        if (switch.has_value && value.is_empty()) || !self.options.set(switch.name, &value) {
            self.bad.push((name.to_owned(), value));
        }
    }

    /// Refuses what this command does not understand, with the reason.
    pub(super) fn check(&self, command: &Command) -> Result<(), String> {
        let rare = self.only_for.iter().filter(|name| !command.options.contains(name));
        let bad: Vec<_> = self
            .bad
            .iter()
            .map(|(name, value)| format!("\n{name} : {value}"))
            .chain(rare.map(|name| format!("\n--{name} : ")))
            .collect();
        if !bad.is_empty() {
            return Err(format!("Invalid options for this command:{}", bad.concat()));
        }
        match self.operands.len() {
            few if few < command.operands.0 => Err("not enough arguments.".to_owned()),
            many if many > command.operands.1 => Err("too many arguments.".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Options {
    /// False where the value makes no sense.
    fn set(&mut self, name: &str, value: &str) -> bool {
        let mut is_sound = true;
        match name {
            "vhost" => self.vhost = Some(value.to_owned()),
            "quiet" => self.quiet = true,
            "silent" => self.silent = true,
            "timeout" => match value.parse() {
                Ok(seconds) => self.timeout = Some(Duration::from_secs(seconds)),
                Err(_) => is_sound = value == "infinity",
            },
            "formatter" => match Formatter::named(value) {
                Some(formatter) => self.formatter = formatter,
                None => is_sound = false,
            },
            "no-table-headers" => self.no_table_headers = true,
            "help" => self.asks_for_help = true,
            "data-dir" => self.data_dir = Some(value.into()),
            "url" => self.url = Some(value.to_owned()),
            "if-empty" => self.if_empty = true,
            "if-unused" => self.if_unused = true,
            "offline" => self.offline = true,
            "priority" => match value.parse() {
                Ok(priority) => self.priority = priority,
                Err(_) => is_sound = false,
            },
            "apply-to" => self.apply_to = Some(value.to_owned()),
            "global" => self.global = true,
            "limit" => match value.parse() {
                Ok(limit) => self.limit = limit,
                Err(_) => is_sound = false,
            },
            "per-connection-delay" => match value.parse() {
                Ok(ms) => self.delay = Duration::from_millis(ms),
                Err(_) => is_sound = false,
            },
            // Known from RabbitMQ, and without meaning here.
            _ => {}
        }
        is_sound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::parse(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_stand_before_the_command_or_after_it() {
        for text in ["-q -p v list_queues name", "list_queues name --quiet --vhost v", "list_queues -p=v -q name"] {
            let line = line(text);
            assert_eq!(line.command.as_deref(), Some("list_queues"), "{text}");
            assert_eq!(line.operands, ["name"], "{text}");
            assert!(line.options.quiet, "{text}");
            assert_eq!(line.options.vhost(), "v", "{text}");
        }
    }

    #[test]
    fn after_two_dashes_everything_is_an_operand() {
        assert_eq!(line("purge_queue -- -q").operands, ["-q"]);
    }

    #[test]
    fn what_makes_no_sense_is_kept_to_be_told() {
        let bad = |text| line(text).bad;
        assert_eq!(bad("list_queues --badflag"), [("--badflag".to_owned(), String::new())]);
        assert_eq!(bad("list_queues -t abc"), [("-t".to_owned(), "abc".to_owned())]);
        assert_eq!(bad("list_queues -p"), [("-p".to_owned(), String::new())]);
        assert_eq!(bad("list_queues --formatter nof"), [("--formatter".to_owned(), "nof".to_owned())]);
        assert!(bad("list_queues -n rabbit@host -l -t 10").is_empty());
    }

    #[test]
    fn help_and_version_are_commands_and_options() {
        assert!(line("help list_queues").options.asks_for_help);
        assert_eq!(line("help list_queues").command.as_deref(), Some("list_queues"));
        assert!(line("list_queues --help").options.asks_for_help);
        assert_eq!(line("--version").command.as_deref(), Some("version"));
    }
}
