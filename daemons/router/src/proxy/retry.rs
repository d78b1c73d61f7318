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

/// The request of which an attempt has failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The connection had carried an earlier request.
    pub(crate) is_reused: bool,
    /// It may reach the app twice: its method is safe and it has no body.
    pub(crate) is_replayable: bool,
    /// An earlier attempt had reached the app: whatever ends instances here may end the next one.
    pub(crate) has_reached: bool,
}

/// Decides.
pub(crate) fn next(failure: Failure, case: Case) -> Next {
    match failure {
        Failure::Unsent if case.is_reused => Next::NewConnection,
        Failure::NoConnection | Failure::Unsent => Next::OtherInstance,
        Failure::Ended if !case.is_replayable || case.has_reached => Next::GiveUp,
        Failure::Ended if case.is_reused => Next::NewConnection,
        Failure::Ended => Next::OtherInstance,
        Failure::Garbage | Failure::TimedOut => Next::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cases() {
        use Failure::{Ended, Garbage, NoConnection, TimedOut, Unsent};
        use Next::{GiveUp, NewConnection, OtherInstance};
        for (failure, is_reused, is_replayable, expected) in [
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
            let case = Case { is_reused, is_replayable, has_reached: false };
            assert_eq!(next(failure, case), expected, "{failure:?} {case:?}");
            let case = Case { has_reached: true, ..case };
            let expected = if failure == Ended { GiveUp } else { expected };
            assert_eq!(next(failure, case), expected, "{failure:?} {case:?}");
        }
    }
}
