//! `leveret ctl`: an operator's commands, as `rabbitmqctl` has them and prints them.
//!
//! Each is a request or two to the server's HTTP API, by default through the socket in its data directory, which asks
//! for no password. Everything is done with blocking calls on one thread, so that an answer takes a few milliseconds.
//!
//! Standard output gets what was asked for, after a banner unless that is turned off; standard error gets what went
//! wrong. Exit codes are RabbitMQ's (see [`failure`]).

mod api;
mod arguments;
mod backup;
mod checks;
mod commands;
mod failure;
mod formats;
mod help;
mod identity;
mod jobs;
mod limits;
mod lists;
mod nodes;
mod operations;
mod policies;
mod reload;
mod schedules;
mod status;
mod top;

use arguments::{Line, Options};
use failure::{Failure, Wrong};
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs the command that these arguments (those after the program's name) say. `program` is what the user typed to get
/// here, such as `leveret ctl`.
pub(crate) fn run(program: &str, arguments: Vec<String>) -> ExitCode {
    let mut screen = Screen { out: io::BufWriter::new(io::stdout().lock()) };
    let ran = obey(program, arguments, &mut screen).and_then(|()| screen.flush());
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _shown_so_far = screen.flush();
            if !failure.text.is_empty() {
                // Nobody is left to tell when this fails.
                let _unseen = writeln!(io::stderr().lock(), "{}", failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// The commands as clap describes them.
pub(crate) fn commands() -> Vec<clap::Command> {
    help::described()
}

/// The options that all of them have.
pub(crate) fn options() -> Vec<clap::Arg> {
    help::general()
}

fn obey(program: &str, arguments: Vec<String>, screen: &mut Screen) -> Result<(), Failure> {
    let line = Line::parse(arguments);
    let Some(name) = line.command.as_deref() else {
        return match line.options.asks_for_help {
            true => screen.line(help::overview(program).trim_end()),
            false => Err(Failure { code: failure::USAGE, text: help::overview(program) }),
        };
    };
    let Some(command) = commands::find(name) else {
        let text = format!("\nCommand '{name}' not found. \n{}", help::overview(program));
        return Err(Failure { code: failure::USAGE, text });
    };
    if line.options.asks_for_help {
        return screen.line(help::of(program, command).trim_end());
    }
    let usage_error = |reason| Wrong { code: failure::USAGE, reason };
    let checked = line.check(command).map_err(usage_error).and_then(|()| command.run.check(&line));
    if let Err(Wrong { code, reason }) = checked {
        let given = line.given.join(" ");
        let usage = help::usage(program, command);
        let text = format!("Error (argument validation): {reason}\nArguments given:\n\t{given}\n{usage}");
        return Err(Failure { code, text: text.trim_end().to_owned() });
    }
    command.run.run(program, &line, screen)
}

/// Where answers go.
struct Screen {
    out: io::BufWriter<io::StdoutLock<'static>>,
}

impl Screen {
    fn line(&mut self, text: &str) -> Result<(), Failure> {
        Self::written(writeln!(self.out, "{text}"))
    }

    /// A line that says what is being done, before it is: shown at once, and only to people.
    fn banner(&mut self, options: &Options, text: &str) -> Result<(), Failure> {
        if options.quiet || options.silent || options.formatter.is_for_machines() {
            return Ok(());
        }
        self.line(text)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        Self::written(self.out.flush())
    }

    /// Whoever closed the pipe has seen enough: that ends the program, quietly.
    fn written(result: io::Result<()>) -> Result<(), Failure> {
        result.map_err(|error| Failure {
            code: failure::SOFTWARE,
            text: match error.kind() {
                io::ErrorKind::BrokenPipe => String::new(),
                _ => format!("Error: cannot write to standard output: {error}"),
            },
        })
    }
}
