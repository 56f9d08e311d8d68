//! Shell completions and manual pages, from the definitions that the command line is read by.

use crate::ctl;
use clap::{Args, CommandFactory, ValueEnum};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// A shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsFlags {
    /// The shell
    shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManFlags {
    /// Where to write the pages
    directory: PathBuf,
}

/// Prints a script that the shell is to read.
pub(crate) fn completions<C: CommandFactory>(flags: &CompletionsFlags) -> ExitCode {
    use clap_complete::{Shell as Target, generate};
    let shell = match flags.shell {
        Shell::Bash => Target::Bash,
        Shell::Zsh => Target::Zsh,
        Shell::Fish => Target::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut whole::<C>(), "leveret", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes `leveret.1`, `leveret-ctl.1` and so on.
pub(crate) fn man<C: CommandFactory>(flags: &ManFlags) -> ExitCode {
    let written = std::fs::create_dir_all(&flags.directory)
        .and_then(|()| clap_mangen::generate_to(whole::<C>(), &flags.directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let directory = flags.directory.display();
            let _closed = writeln!(io::stderr(), "leveret: cannot write to {directory}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The command line with the commands of `ctl`, which are not read by clap.
fn whole<C: CommandFactory>() -> clap::Command {
    C::command().mut_subcommand("ctl", |ctl| {
        let ctl = ctl.mut_arg("arguments", |argument| argument.hide(true)).args(ctl::options());
        ctl.subcommands(ctl::commands())
    })
}
