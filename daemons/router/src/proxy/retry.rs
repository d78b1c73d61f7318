//! What to do when an attempt got no answer.

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be made: nothing has reached the app.
    NoConnection,
    /// The connection was closed before any of the request went out.
    Unsent,
    /// The connection ended before the first byte of an answer.
    Ended,
    /// Something came that is no answer, or only a part of one.
    Garbage,
    /// The deadline over all attempts has passed.
    TimedOut,
}

/// What comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Once more with the same instance, over a new connection: an idle one was closed under our hands, which says
    /// nothing about the instance.
    NewConnection,
    /// Another instance.
    OtherInstance,
    /// No further attempt.
    GiveUp,
}

/// Decides. `reused` says that the connection had carried an earlier request, `replayable` that the request may reach
/// the app twice: its method is safe and it has no body.
pub(crate) fn next(failure: Failure, reused: bool, replayable: bool) -> Next {
    match failure {
        Failure::NoConnection => Next::OtherInstance,
        Failure::Unsent if reused => Next::NewConnection,
        Failure::Unsent => Next::OtherInstance,
        Failure::Ended if replayable && reused => Next::NewConnection,
        Failure::Ended if replayable => Next::OtherInstance,
        Failure::Ended | Failure::Garbage | Failure::TimedOut => Next::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cases() {
        use Failure::{Ended, Garbage, NoConnection, TimedOut, Unsent};
        use Next::{GiveUp, NewConnection, OtherInstance};
        for (failure, reused, replayable, expected) in [
            (NoConnection, false, true, OtherInstance),
            (NoConnection, false, false, OtherInstance),
            (Unsent, true, true, NewConnection),
            (Unsent, true, false, NewConnection),
            (Unsent, false, true, OtherInstance),
            (Unsent, false, false, OtherInstance),
            (Ended, true, true, NewConnection),
            (Ended, false, true, OtherInstance),
            (Ended, true, false, GiveUp),
            (Ended, false, false, GiveUp),
            (Garbage, true, true, GiveUp),
            (Garbage, false, true, GiveUp),
            (TimedOut, false, true, GiveUp),
            (TimedOut, true, false, GiveUp),
        ] {
            let case = format!("{failure:?} reused {reused} replayable {replayable}");
            assert_eq!(next(failure, reused, replayable), expected, "{case}");
        }
    }
}
