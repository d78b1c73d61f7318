//! The command line of DINP.
//!
//! * [`args`]: the whole grammar, with what `--help` says,
//! * [`commands`]: what each command does; they talk to dash through [`api`],
//! * [`signin`]: how a person's access token is got, and [`contexts`]: where it is kept,
//! * [`follow`]: waiting for builds and deployments while saying what goes on,
//! * [`output`]: tables for people, documents for programs,
//! * [`setup`]: `dinp setup`, which makes a machine a part of a cluster,
//! * [`error`]: what went wrong, what to do next, and the exit code.

pub mod api;
pub mod args;
pub mod commands;
pub mod contexts;
pub mod error;
pub mod follow;
pub mod output;
pub mod package;
pub mod probe;
pub mod session;
pub mod setup;
pub mod signin;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Cli;
use clap::Parser;
use error::CliError;
use output::Output;

/// Runs the command line and says how the process is to end.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let out = Output::new(&cli.global);
    match run(cli, &out) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads our output has read enough.
        Err(CliError::Stdout(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&error);
            error.exit_code()
        }
    }
}

fn run(cli: Cli, out: &Output) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| CliError::io("start the runtime", source))?;
    let result = runtime.block_on(commands::run(cli, out));
    // What still runs beside, such as a probe that nobody waits for, must not keep the process alive.
    runtime.shutdown_background();
    result
}

/// Prints what clap has to say: help on standard output, mistakes on standard error.
fn refused(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if error.print().is_err() {
        return ExitCode::from(error::FAILURE);
    }
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        ErrorKind::ValueValidation => ExitCode::from(error::REFUSED),
        _ => ExitCode::from(error::USAGE),
    }
}
