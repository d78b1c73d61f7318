//! What went wrong, in one sentence, what to do next, and the exit code.

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use dinp_common::client::ClientError;
use dinp_common::error::ErrorChain;
use dinp_common::model::InvalidValue;
use serde_json::json;
use url::Url;

use crate::setup::SetupError;
use crate::trust::Distrust;

/// Anything that no other code is for.
pub const FAILURE: u8 = 1;
/// `dinp setup --check` found something to change.
pub const DUE: u8 = 2;
/// The build or the deployment that was waited for did not succeed.
pub const NOT_DEPLOYED: u8 = 4;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// A value was refused, by this program or by the server.
pub const REFUSED: u8 = 65;
/// DINP cannot be reached, or cannot answer now.
pub const UNAVAILABLE: u8 = 69;
/// Not signed in, or not allowed.
pub const NOT_ALLOWED: u8 = 77;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line is wrong in a way that the grammar cannot say.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A value that breaks its rule.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// Something that was named does not fit.
    #[error("{message}")]
    Refused {
        /// What and why.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Nobody is signed in.
    #[error("{message}")]
    SignedOut {
        /// Where, or why.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The server refused, or could not be reached.
    #[error("{}", told(source, server))]
    Server {
        /// Whom we called.
        server: Url,
        /// What happened.
        #[source]
        source: Box<ClientError>,
    },
    /// A build or a deployment ended otherwise than wanted.
    #[error("{message}")]
    NotDeployed {
        /// Which, and why.
        message: String,
        /// What to do.
        hint: String,
        /// The last lines of the instance that failed.
        output: Vec<String>,
    },
    /// A wait took longer than allowed.
    #[error("{message}")]
    Unavailable {
        /// What does not answer.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A file or another thing of this machine.
    #[error("cannot {act}")]
    Io {
        /// What was tried, with its object.
        act: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Standard output is gone or full.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// A machine that is not set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Something else, as a sentence.
    #[error("{0}")]
    Other(String),
}

impl CliError {
    /// An act on this machine that failed.
    pub fn io(act: impl Into<String>, source: io::Error) -> Self {
        Self::Io { act: act.into(), source }
    }

    /// An act on a file that failed.
    pub fn file(act: &str, path: &Path, source: io::Error) -> Self {
        Self::io(format!("{act} {}", path.display()), source)
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// A value that cannot be.
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: hint.into() }
    }

    /// The HTTP status, if the server answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Server { source, .. } => source.status(),
            _ => None,
        }
    }

    /// Whether the server answered with a problem of this kind.
    pub fn is_problem(&self, kind: &str) -> bool {
        let Self::Server { source, .. } = self else { return false };
        matches!(&**source, ClientError::Problem(problem) if problem.kind == kind)
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        self.code() == UNAVAILABLE
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage { .. } => USAGE,
            Self::Invalid(_) | Self::Refused { .. } => REFUSED,
            Self::SignedOut { .. } => NOT_ALLOWED,
            Self::NotDeployed { .. } => NOT_DEPLOYED,
            Self::Unavailable { .. } => UNAVAILABLE,
            Self::Server { source, .. } => match source.status() {
                None if matches!(**source, ClientError::Transport { .. }) => UNAVAILABLE,
                Some(401 | 403) => NOT_ALLOWED,
                Some(408 | 429 | 502..=504) => UNAVAILABLE,
                Some(400..500) => REFUSED,
                _ => FAILURE,
            },
            Self::Setup(error) if error.is_due() => DUE,
            Self::Setup(_) | Self::Io { .. } | Self::Stdout(_) | Self::Other(_) => FAILURE,
        }
    }

    /// The exit code as the process ends with it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// The error in one line, with as much of its causes as helps.
    pub fn told(&self) -> String {
        match self {
            // What an answer says is the whole sentence; of a failed call only the root says something.
            Self::Server { server, source } => match &**source {
                ClientError::Transport { source, .. } => match Distrust::of(source, server) {
                    Some(distrust) => format!("{self}: {}", distrust.why),
                    None => format!("{self}: {}", root(source)),
                },
                ClientError::Decode { source, .. } => format!("{self}: {source}"),
                _ => self.to_string(),
            },
            _ => ErrorChain(self).to_string(),
        }
    }

    /// The last lines of the instance that it is about.
    pub fn output(&self) -> &[String] {
        match self {
            Self::NotDeployed { output, .. } => output,
            _ => &[],
        }
    }

    /// The error as a document: what the server answered, where it did, else this program's own words.
    pub fn document(&self) -> serde_json::Value {
        let problem = match self {
            Self::Server { source, .. } => source.problem(),
            _ => None,
        };
        let mut document = problem.map_or(json!({}), |problem| json!(problem));
        document["detail"] = json!(self.told());
        document["exit_code"] = json!(self.code());
        if let Some(hint) = self.hint() {
            document["hint"] = json!(hint);
        }
        if !self.output().is_empty() {
            document["output"] = json!(self.output());
        }
        document
    }

    /// What to do next, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. }
            | Self::Refused { hint, .. }
            | Self::SignedOut { hint, .. }
            | Self::NotDeployed { hint, .. }
            | Self::Unavailable { hint, .. } => Some(hint.clone()).filter(|hint| !hint.is_empty()),
            Self::Server { server, source } => hint_of(source, server),
            _ => None,
        }
    }
}

fn root(error: &dyn Error) -> &dyn Error {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last
}

fn hint_of(source: &ClientError, server: &Url) -> Option<String> {
    let problem = match source {
        ClientError::Transport { source, .. } => {
            if let Some(distrust) = Distrust::of(source, server) {
                return Some(distrust.hint).filter(|hint| !hint.is_empty());
            }
            let hint =
                "check the address (`dinp context ls`) and that dinp-dash runs there (`systemctl status dinp-dash`)";
            return Some(hint.into());
        }
        ClientError::Decode { .. } => {
            let hint = "is this the address of a DINP dashboard, and its version near to that of `dinp --version`?";
            return Some(hint.into());
        }
        _ => source.problem()?,
    };
    if let Some(hint) = problem.text("hint") {
        return Some(hint.to_owned());
    }
    let hint = match problem.status {
        301 | 302 | 307 | 308 => "it sends you elsewhere: if TLS is spoken there, write https:// before its name",
        401 => "sign in with `dinp login`",
        403 => "`dinp whoami` shows your roles; ask an owner of the team, or an administrator",
        429 => "wait a little and try again",
        502..=504 => "try again in a few seconds; `dinp status` shows how the cluster is",
        500 => "the journal of dinp-dash has the cause (`journalctl -u dinp-dash`)",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn told(source: &ClientError, server: &Url) -> String {
    match source {
        ClientError::Problem(problem) => problem.to_string(),
        ClientError::Transport { .. } => format!("no answer from {}", trimmed(server)),
        ClientError::Decode { .. } => {
            format!("{} answered with something else than a document of DINP", trimmed(server))
        }
        ClientError::Url { .. } => source.to_string(),
    }
}

/// A server's URL as people write it.
pub fn trimmed(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::problem::Problem;
    use http::StatusCode;

    fn answered(status: u16) -> CliError {
        let status = StatusCode::from_u16(status).unwrap();
        let problem = Problem::new(status, "some-kind", "a sentence");
        let server = Url::parse("http://dash.example:1985").unwrap();
        CliError::Server { server, source: Box::new(ClientError::Problem(problem)) }
    }

    #[test]
    fn exit_codes_follow_the_status() {
        let table = [
            (400, REFUSED),
            (401, NOT_ALLOWED),
            (403, NOT_ALLOWED),
            (404, REFUSED),
            (409, REFUSED),
            (413, REFUSED),
            (422, REFUSED),
            (429, UNAVAILABLE),
            (500, FAILURE),
            (502, UNAVAILABLE),
            (503, UNAVAILABLE),
            (504, UNAVAILABLE),
        ];
        for (status, code) in table {
            assert_eq!(answered(status).code(), code, "{status}");
        }
    }

    #[test]
    fn the_sentence_is_the_servers() {
        assert_eq!(answered(409).to_string(), "a sentence");
        assert_eq!(answered(401).hint().as_deref(), Some("sign in with `dinp login`"));
    }
}
