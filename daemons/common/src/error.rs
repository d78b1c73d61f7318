//! How an error is shown: once, at the top, as a chain.

use std::error::Error;
use std::fmt;

/// Displays an error and all its sources as `a: b: c`.
///
/// A source whose text is already the end of what was printed is left out, because some foreign
/// errors repeat their source.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read table app")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("connection refused")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("send: {0}")]
    struct Repeats(#[source] Inner);

    #[test]
    fn chain_names_every_cause_once() {
        assert_eq!(ErrorChain(&Outer(Inner)).to_string(), "read table app: connection refused");
        assert_eq!(ErrorChain(&Repeats(Inner)).to_string(), "send: connection refused");
    }
}
