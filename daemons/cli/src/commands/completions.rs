//! `dinp completions`: for the shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::CliError;
use crate::output::Output;

/// Arguments of `dinp completions`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  dinp completions bash | sudo tee /usr/share/bash-completion/completions/dinp\n  \
    dinp completions zsh > ~/.zfunc/_dinp\n  dinp completions fish > ~/.config/fish/completions/dinp.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(completions: &Completions, out: &Output) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Cli::command(), "dinp", &mut script);
    out.raw(&script)
}
