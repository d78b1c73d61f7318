//! Steps that are about systemd units.

use super::error::SetupError;
use super::step::{State, Step, Task};
use super::system::{self, run};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A unit that is enabled and runs with the files that are there now.
pub struct Unit {
    name: String,
    reads: Vec<PathBuf>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Runs all the time.
    Service,
    /// Started by its socket: must not run with files that are older than now.
    OnDemand,
}

impl Unit {
    /// The step as it stands in a list; `reads` are the files that the unit reads at its start.
    pub fn step<P: Into<PathBuf>>(name: impl Into<String>, reads: impl IntoIterator<Item = P>) -> Box<dyn Step> {
        let reads = reads.into_iter().map(Into::into).collect();
        Box::new(Self { name: name.into(), reads, kind: Kind::Service })
    }

    /// The same for a service that its socket starts.
    pub fn on_demand<P: Into<PathBuf>>(name: impl Into<String>, reads: impl IntoIterator<Item = P>) -> Box<dyn Step> {
        let reads = reads.into_iter().map(Into::into).collect();
        Box::new(Self { name: name.into(), reads, kind: Kind::OnDemand })
    }

    async fn state(&self) -> Result<State, SetupError> {
        let shown = show(&self.name).await?;
        if shown.get("LoadState").map(String::as_str) == Some("not-found") {
            let sentence = format!("there is no unit {}: is its package installed?", self.name);
            return Err(SetupError::Refused(sentence));
        }
        let is = |key: &str, value: &str| shown.get(key).is_some_and(|found| found == value);
        if self.kind == Kind::OnDemand {
            if is("ActiveState", "inactive") {
                return Ok(State::Ok);
            }
        } else {
            if is("UnitFileState", "disabled") {
                return Ok(State::due("enable and start"));
            }
            if !is("ActiveState", "active") {
                return Ok(State::due("start"));
            }
        }
        if is("NeedDaemonReload", "yes") {
            return Ok(State::due("restart: its unit has changed"));
        }
        let since = shown.get("InactiveExitTimestamp").and_then(|text| parse_timestamp(text));
        let since = since.unwrap_or(UNIX_EPOCH);
        let newer = self
            .reads
            .iter()
            .find(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).is_ok_and(|changed| changed > since));
        Ok(newer.map_or(State::Ok, |path| State::due(format!("restart: {} has changed", path.display()))))
    }
}

impl Step for Unit {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(self.state())
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            // Each of these makes systemd read all units again, which takes its time on a busy machine.
            let shown = show(&self.name).await?;
            let is = |key: &str, value: &str| shown.get(key).is_some_and(|found| found == value);
            // systemd does not notice the first drop-in of a unit by itself.
            let has_drop_in = self.reads.iter().any(|path| path.starts_with("/etc/systemd"));
            if has_drop_in || is("NeedDaemonReload", "yes") {
                run("systemctl", &["daemon-reload"], None).await?;
            }
            if self.kind == Kind::OnDemand {
                return run("systemctl", &["try-restart", &self.name], None).await.map(drop);
            }
            if is("UnitFileState", "disabled") {
                run("systemctl", &["enable", "--quiet", &self.name], None).await?;
            }
            // A unit that has failed too often would refuse.
            if is("ActiveState", "failed") {
                run("systemctl", &["reset-failed", &self.name], None).await?;
            }
            // A socket that is restarted below its running service fails, and a target would take its daemons along.
            let verb = if self.name.ends_with(".service") { "restart" } else { "start" };
            run("systemctl", &[verb, &self.name], None).await.map_err(|error| told(&self.name, error))?;
            match show(&self.name).await?.get("ActiveState").map(String::as_str) {
                Some("active" | "reloading" | "activating") => Ok(()),
                state => Err(SetupError::Refused(format!(
                    "{} is {} after its start: systemctl status {} says why",
                    self.name,
                    state.unwrap_or("unknown"),
                    self.name
                ))),
            }
        })
    }
}

fn told(unit: &str, error: SetupError) -> SetupError {
    match error {
        SetupError::Command { output, .. } => {
            SetupError::Refused(format!("{unit} does not start: {output}; journalctl -u {unit} says more"))
        }
        other => other,
    }
}

async fn show(unit: &str) -> Result<HashMap<String, String>, SetupError> {
    let properties = "--property=LoadState,ActiveState,UnitFileState,NeedDaemonReload,InactiveExitTimestamp,StatusText";
    let text = run("systemctl", &["show", "--timestamp=us+utc", properties, unit], None).await?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// `Sun 2026-11-22 17:58:42.123456 UTC`
fn parse_timestamp(text: &str) -> Option<SystemTime> {
    let time = jiff::fmt::strtime::parse("%a %Y-%m-%d %H:%M:%S%.f UTC", text).ok()?;
    let time = time.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(SystemTime::from(time.timestamp()))
}

/// A daemon that answers 200 to `/ready`.
pub struct Ready {
    /// Its unit.
    pub unit: &'static str,
    /// Its port on the loopback address.
    pub port: u16,
    /// How long it may take.
    pub time: Duration,
}

impl Ready {
    /// The step as it stands in a list.
    pub fn step(unit: &'static str, port: u16) -> Box<dyn Step> {
        Box::new(Self { unit, port, time: Duration::from_secs(60) })
    }

    /// Asks once; the answer of a daemon that is not ready is the error.
    async fn ask(&self) -> Result<(), SetupError> {
        let url = format!("http://127.0.0.1:{}/ready", self.port);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build();
        let client = client.map_err(|error| SetupError::Refused(error.to_string()))?;
        let why = match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => dinp_common::error::ErrorChain(&error.without_url()).to_string(),
        };
        Err(SetupError::Refused(why))
    }
}

impl Step for Ready {
    fn name(&self) -> String {
        format!("{} is ready", self.unit)
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            // One that its socket starts has begun a moment ago.
            let at_once = system::retry(Duration::from_secs(2), async || self.ask().await).await;
            Ok(at_once.map_or_else(|_| State::due("waited for it"), |()| State::Ok))
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let waited = system::retry(self.time, async || self.ask().await).await;
            let Err(error) = waited else { return Ok(()) };
            let shown = show(self.unit).await?;
            let part = |key: &str| shown.get(key).cloned().unwrap_or_default();
            Err(SetupError::Refused(format!(
                "not ready after {} s: unit {}, \"{}\"; /ready says: {}; journalctl -u {} says more",
                self.time.as_secs(),
                part("ActiveState"),
                part("StatusText"),
                error,
                self.unit
            )))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_systemd() {
        let time = parse_timestamp("Sun 2026-11-22 17:58:42.123456 UTC").unwrap();
        assert_eq!(time.duration_since(UNIX_EPOCH).unwrap(), Duration::from_micros(1_795_370_322_123_456));
        assert_eq!(parse_timestamp("n/a"), None);
    }
}
