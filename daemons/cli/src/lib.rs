//! The command line of DINP.
//!
//! * [`args`]: the whole grammar, with what `--help` says,
//! * [`commands`]: what each command does; they talk to dash through [`api`],
//! * [`signin`]: how a person's access token is got, and [`contexts`]: where it is kept,
//! * [`trust`]: whom it trusts over TLS,
//! * [`follow`]: waiting for builds and deployments while saying what goes on,
//! * [`upload`]: a package's way to dash, over connections that break,
//! * [`variables`] and [`dotenv`]: environment variables from arguments, files and standard input,
//! * [`output`]: tables for people, documents for programs,
//! * [`setup`]: `dinp setup`, which makes a machine a part of a cluster,
//! * [`error`]: what went wrong, what to do next, and the exit code.

mod api;
pub mod args;
mod commands;
mod contexts;
mod directory;
mod dotenv;
mod error;
mod follow;
mod output;
mod package;
mod probe;
mod session;
mod setup;
mod signin;
mod trust;
mod upload;
mod variables;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Cli;
use clap::Parser;
use error::CliError;
use output::Output;

/// Runs the command line and says how the process is to end.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, wants_json(&arguments)),
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

/// Whether a command line that could not be read asks for documents.
fn wants_json(arguments: &[OsString]) -> bool {
    let is = |argument: &OsString, wanted: &[&str]| wanted.iter().any(|wanted| argument == wanted);
    arguments.iter().any(|argument| is(argument, &["--output=json", "-ojson", "-o=json"]))
        || arguments.windows(2).any(|pair| is(&pair[0], &["-o", "--output"]) && pair[1] == "json")
}

/// Prints what clap has to say: help on standard output, mistakes on standard error.
fn refused(error: &clap::Error, json: bool) -> ExitCode {
    use clap::error::ErrorKind;
    let code = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        ErrorKind::ValueValidation => error::REFUSED,
        _ => error::USAGE,
    };
    if json && code != 0 {
        let told = error.to_string();
        let told = told.trim().trim_start_matches("error: ");
        eprintln!("{}", serde_json::json!({"detail": told, "exit_code": code}));
    } else if error.print().is_err() {
        return ExitCode::from(error::FAILURE);
    }
    ExitCode::from(code)
}
