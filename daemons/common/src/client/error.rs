//! Why a call to another daemon failed.

use url::Url;

use crate::problem::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The other side answered, with a problem.
    #[error(transparent)]
    Problem(Problem),
    /// There was no complete answer.
    #[error("call {url}")]
    Transport {
        /// What was called.
        url: Url,
        /// Why it failed.
        #[source]
        source: reqwest::Error,
    },
    /// The answer is not what it should be.
    #[error("decode the answer of {url}")]
    Decode {
        /// What was called.
        url: Url,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// The client has no address, or the path makes no URL with it.
    #[error("make a URL of {path}: {problem}")]
    Url {
        /// The path that was asked for.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl ClientError {
    /// The problem, if the other side answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// True for the problem `kind`.
    pub fn is_kind(&self, kind: &str) -> bool {
        self.problem().is_some_and(|problem| problem.kind == kind)
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.problem().map(|problem| problem.status)
    }
}
