//! `leveret config`: whether a configuration is right, and what follows from it. Nothing is started or changed.

use crate::serve;
use clap::{Args, Subcommand};
use server::config::{Config, ConfigError, Source};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// What to do.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Check a file of settings and the certificates it names. Exit code 0: a server would start with it, though there
    /// may be warnings; 66: it cannot be read; 78: it is wrong
    Check {
        /// A TOML file, or a rabbitmq.conf [default: what LEVERET_CONFIG names]
        #[arg(value_name = "FILE", env = "LEVERET_CONFIG")]
        file: PathBuf,
    },
    /// Print every key with its value and where that is from, as TOML. Takes the flags of `serve`
    Show(Box<serve::Flags>),
}

/// Runs one of the commands.
pub(crate) fn run(flags: &Flags) -> ExitCode {
    let (text, failure) = match &flags.what {
        What::Check { file } => match check(file) {
            Ok(text) => (text, None),
            Err(error) => (String::new(), Some(error)),
        },
        What::Show(flags) => match show(flags) {
            Ok(text) => (text, None),
            Err(error) => (String::new(), Some(error.into())),
        },
    };
    // Whoever closed the pipe has seen enough.
    let _closed = io::stdout().write_all(text.as_bytes());
    let Some(failure) = failure else { return ExitCode::SUCCESS };
    // Nobody is left to tell when this fails.
    let _unseen = writeln!(io::stderr(), "leveret: {failure:#}");
    match failure.downcast_ref() {
        Some(ConfigError::Unreadable { .. }) => ExitCode::from(UNREADABLE),
        _ => ExitCode::from(WRONG),
    }
}

fn check(file: &std::path::Path) -> anyhow::Result<String> {
    let source = Source::from_file(file)?;
    let config = Config::from_sources(std::slice::from_ref(&source))?;
    server::check_certificates(&config)?;
    for warning in &source.warnings {
        let _unseen = writeln!(io::stderr(), "warning: {warning}");
    }
    Ok(match source.warnings.len() {
        0 => format!("{} is right\n", file.display()),
        1 => format!("{} is right, with 1 warning\n", file.display()),
        count => format!("{} is right, with {count} warnings\n", file.display()),
    })
}

fn show(flags: &serve::Flags) -> Result<String, ConfigError> {
    let sources = serve::sources(flags)?;
    let config = Config::from_sources(&sources)?;
    let lines = config.explain(&sources).into_iter();
    Ok(lines.map(|(key, value, place)| format!("{key} = {value} # {place}\n")).collect())
}

/// BSD's EX_NOINPUT.
const UNREADABLE: u8 = 66;
/// BSD's EX_CONFIG, which RabbitMQ's tools use as well.
const WRONG: u8 = 78;
