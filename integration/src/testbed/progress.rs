//! What people see while a long step runs: its name, that it is alive, how long it took.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::Result;

/// How often a step that takes long says so.
const STILL: Duration = Duration::from_secs(15);

/// Lines of progress with the time since the start of the whole run.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    started: SystemTime,
}

impl Progress {
    /// Counts from the start of the calling script (`DINP_STARTED`, seconds since 1970) or from now.
    #[must_use]
    pub fn new() -> Self {
        let started = std::env::var("DINP_STARTED")
            .ok()
            .and_then(|text| text.parse().ok())
            .map_or_else(SystemTime::now, |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        Self { started }
    }

    /// One line.
    pub fn say(&self, text: &str) {
        let passed = self.started.elapsed().unwrap_or_default().as_secs();
        println!("\x1b[1m==>\x1b[0m [{:2}:{:02}] {text}", passed / 60, passed % 60);
    }

    /// Runs a step: says what begins, every 15 s that it goes on, and at its end how long it took.
    pub async fn step<T>(&self, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.say(title);
        let began = Instant::now();
        let mut work = std::pin::pin!(work);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                () = tokio::time::sleep(STILL) => {
                    println!("    {title}: {} s so far", began.elapsed().as_secs());
                }
            }
        };
        let took = began.elapsed().as_secs_f32();
        match &outcome {
            Ok(_) if took >= 1.0 => println!("    {title}: {took:.1} s"),
            Ok(_) => {}
            Err(_) => println!("    {title}: failed after {took:.1} s"),
        }
        outcome
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
