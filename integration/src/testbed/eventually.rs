//! Assertions with a deadline.

use std::time::{Duration, Instant};

use super::error::{Error, Result};

/// How often one looks. Looking is cheap beside what is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Looks until `look` returns `Ok`, at most for `within`; the error says what the last look showed.
///
/// A look that hangs counts as one that showed nothing.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = String::from("no look came back");
    loop {
        let left = within.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(seen)) => return Ok(seen),
            Ok(Err(not_yet)) => last = not_yet,
            Err(_) => {}
        }
        if began.elapsed() + LOOK > within {
            return Err(Error::Deadline { what: what.to_owned(), within, last });
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_what_the_first_good_look_saw() {
        let mut looks = 0;
        let seen = eventually("three looks", Duration::from_secs(5), async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks.to_string()) }
        })
        .await;
        assert!(matches!(seen, Ok(3)));
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlive_the_deadline() {
        let within = Duration::from_millis(50);
        let seen: Result<()> = eventually("never", within, async || std::future::pending().await).await;
        assert!(matches!(seen, Err(Error::Deadline { .. })));
    }
}
