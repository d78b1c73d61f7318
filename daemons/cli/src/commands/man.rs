//! `dinp man`: the manual pages, for the package. Hidden: people have `man dinp`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use dinp_common::man;

use crate::args::Cli;
use crate::error::CliError;

/// Arguments of `dinp man`.
#[derive(Args, Debug)]
pub struct Man {
    /// Directory that takes one file per command
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes the pages.
pub fn run(man: &Man) -> Result<(), CliError> {
    let pages = man::commands_of(Cli::command()).map_err(|source| CliError::io("make the pages", source))?;
    for (name, page) in pages {
        let path = man.directory.join(name);
        std::fs::write(&path, page).map_err(|source| CliError::file("write", &path, source))?;
    }
    Ok(())
}
