//! From probes to a verdict. One failure is none.

use dinp_common::api::UnixMillis;

/// What a monitor thinks of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Failures in a row while fit, or successes in a row while unfit.
    against: u32,
    unfit: Option<Unfitness>,
    /// What the last failed probe saw.
    detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Unfitness {
    since: UnixMillis,
}

impl Verdict {
    /// Takes a probe's outcome; true when the verdict has changed.
    ///
    /// It takes `threshold` failures in a row to be unfit, and as many successes in a row to be fit again.
    pub fn observe(&mut self, outcome: &Result<(), String>, threshold: u32, now: UnixMillis) -> bool {
        if let Err(detail) = outcome {
            self.detail.clone_from(detail);
        }
        let confirms = outcome.is_ok() == self.unfit.is_none();
        if confirms {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < threshold.max(1) {
            return false;
        }
        self.against = 0;
        self.unfit = match self.unfit {
            None => Some(Unfitness { since: now }),
            Some(_) => None,
        };
        true
    }

    /// Whether it is fit, and the last probe went well.
    pub fn is_at_rest(&self) -> bool {
        self.unfit.is_none() && self.against == 0
    }

    /// Since when it is unfit, and what the last failed probe saw.
    pub fn unfit(&self) -> Option<(UnixMillis, &str)> {
        self.unfit.as_ref().map(|unfit| (unfit.since, self.detail.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs probes written as letters, `f` a failure and `s` a success, and writes the verdict after each: `-` fit,
    /// `U` unfit.
    fn run(threshold: u32, probes: &str) -> String {
        let mut verdict = Verdict::default();
        let mut now = 0;
        let step = |probe| {
            now += 1;
            let outcome = if probe == 's' { Ok(()) } else { Err(format!("at {now}")) };
            let before = verdict.unfit().is_some();
            let changed = verdict.observe(&outcome, threshold, now);
            let after = verdict.unfit().is_some();
            assert_eq!(changed, before != after);
            if after { 'U' } else { '-' }
        };
        probes.chars().map(step).collect()
    }

    #[test]
    fn a_single_failure_ends_the_rest() {
        let mut verdict = Verdict::default();
        let mut rests = |outcome: Result<(), String>| {
            verdict.observe(&outcome, 2, 1);
            verdict.is_at_rest()
        };
        let bad = || Err("refused".to_owned());
        let seen =
            [rests(Ok(())), rests(bad()), rests(Ok(())), rests(bad()), rests(bad()), rests(Ok(())), rests(Ok(()))];
        assert_eq!(seen, [true, false, true, false, false, false, true]);
    }

    /// The original killed an instance after one failed probe.
    #[test]
    fn one_failed_probe_is_no_verdict() {
        assert_eq!(run(3, "f"), "-");
        assert_eq!(run(3, "sffsffsffs"), "----------");
    }

    #[test]
    fn a_verdict_takes_the_threshold_in_a_row_in_both_directions() {
        assert_eq!(run(3, "sfffffssfsssff"), "---UUUUUUUU---");
        assert_eq!(run(1, "fsfs"), "U-U-");
        assert_eq!(run(0, "fs"), "U-");
    }

    #[test]
    fn it_says_since_when_and_what_was_seen_last() {
        let mut verdict = Verdict::default();
        for (now, detail) in [(10, "refused"), (20, "refused"), (30, "status 500")] {
            verdict.observe(&Err(detail.into()), 2, now);
        }
        assert_eq!(verdict.unfit(), Some((20, "status 500")));
        verdict.observe(&Ok(()), 2, 40);
        assert_eq!(verdict.unfit(), Some((20, "status 500")), "one success is none either");
        verdict.observe(&Ok(()), 2, 50);
        assert_eq!(verdict.unfit(), None);
    }
}
