//! What can go wrong in a set-up, each with the thing and the act.

use dinp_common::credentials::CredentialError;
use dinp_common::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a machine is not set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Something that a person has to put right; the sentence says how.
    #[error("{0}")]
    Refused(String),
    /// A file.
    #[error("{act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program that cannot be started.
    #[error("start {program}")]
    Spawn {
        /// Which.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program that failed.
    #[error("{command} failed: {output}")]
    Command {
        /// The program and its arguments, in which no secret ever stands.
        command: String,
        /// What it said.
        output: String,
    },
    /// MySQL, under an account of ours.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A credential on this machine.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The configuration on this machine.
    #[error(transparent)]
    Config(#[from] dinp_common::config::ConfigError),
    /// One step of several.
    #[error("step \"{step}\"")]
    Step {
        /// Its name.
        step: String,
        /// What went wrong in it.
        #[source]
        source: Box<SetupError>,
    },
    /// `--check` found something to do.
    #[error("{0} changes are due: run the same without --check")]
    Due(usize),
}

impl SetupError {
    /// For `map_err` on an act with a file.
    pub fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { act, path, source }
    }

    /// Whether a check only found changes that are due.
    pub fn is_due(&self) -> bool {
        matches!(self, Self::Due(_))
    }
}
