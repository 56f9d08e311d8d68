//! What the commands say about themselves.

use super::arguments::{SWITCHES, Switch};
use super::commands::{self, Command, Run};
use super::formats::{BOLD, PLAIN};
use std::io::IsTerminal as _;

/// All commands.
pub(super) fn overview(program: &str) -> String {
    let mut text =
        format!("\n{}\n\n{program} {GENERAL} <command> [<command options>]\n\nAvailable commands:\n", head("Usage"));
    let mut section = "";
    for command in commands::all() {
        if command.section != section {
            section = command.section;
            text.push_str(&format!("\n{}:\n\n", head(section)));
        }
        text.push_str(&format!("   {:<30}{}\n", command.name, command.about));
    }
    text.push_str(&format!("\nUse '{program} help <command>' to learn more about a specific command\n"));
    text
}

/// How a command is called.
pub(super) fn usage(program: &str, command: &Command) -> String {
    let arguments = format!("{program} {GENERAL} {} {}", command.name, command.usage);
    format!("\n{}\n\n{}\n", head("Usage"), arguments.trim_end())
}

/// Everything about one command.
pub(super) fn of(program: &str, command: &Command) -> String {
    let mut text = format!("{}\n{}.\n", usage(program, command), command.about);
    if let Run::List(list) = command.run {
        text.push_str(&format!("\n<column>\n\tmust be one of {}\n", list.names().join(", ")));
    }
    text.push_str(&format!("\n{}\n\n{OPTIONS}", head("General Options")));
    text
}

/// Bold where that can be seen.
fn head(text: &str) -> String {
    if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
        format!("{BOLD}{text}{PLAIN}")
    } else {
        text.to_owned()
    }
}

const GENERAL: &str = "[--data-dir <dir>|--url <url>] [--timeout <timeout>] [--quiet]";

const OPTIONS: &str = "\
--data-dir <dir>   the server's data directory (LEVERET_DATA_DIR) [default: leveret-data]
--url <url>        the server's HTTP API, http://USER:PASSWORD@HOST:15672 (LEVERET_URL)
-p, --vhost <v>    virtual host to use [default: /]
-t, --timeout <n>  how long the server may take, in seconds
-q, --quiet        no banners
-s, --silent       no banners and no line of column names
--no-table-headers no line of column names
--formatter <f>    table, pretty_table, json, json_stream or csv
-n, -l             accepted for RabbitMQ's sake: there is one node
";

/// All commands as clap describes them, for completions and manual pages.
pub(super) fn described() -> Vec<clap::Command> {
    let describe = |command: &Command| {
        let mut described = clap::Command::new(command.name).about(command.about).disable_help_flag(true);
        for switch in SWITCHES.iter().filter(|switch| command.options.contains(&switch.name)) {
            described = described.arg(flag(switch));
        }
        if command.operands.1 > 0 {
            let operands = clap::Arg::new("operands").num_args(0..).value_name("ARGUMENT").help(command.usage);
            described = described.arg(operands);
        }
        if let Run::List(list) = command.run
            && command.operands.1 > 0
        {
            described = described.mut_arg("operands", |operands| operands.value_parser(list.names()));
        }
        described
    };
    commands::all().map(describe).collect()
}

/// The options that all commands have.
pub(super) fn general() -> Vec<clap::Arg> {
    SWITCHES.iter().filter(|switch| !switch.is_rare).map(flag).collect()
}

fn flag(switch: &Switch) -> clap::Arg {
    let action = if switch.has_value { clap::ArgAction::Set } else { clap::ArgAction::SetTrue };
    let flag = clap::Arg::new(switch.name).long(switch.name).action(action);
    let help = OPTIONS.lines().find_map(|line| {
        let (flags, help) = line.split_once("  ").or_else(|| line.split_once(' '))?;
        flags.contains(&format!("--{}", switch.name)).then(|| help.trim().to_owned())
    });
    let flag = if let Some(help) = help { flag.help(help) } else { flag };
    match switch.letter {
        Some(letter) => flag.short(letter),
        None => flag,
    }
}
