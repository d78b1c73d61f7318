//! How a release is to be run: what `dinp deploy` and `dinp app deploy` can set.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use dinp_common::api::people::{Deploy, EnvChange, Meta, Setting};
use dinp_common::model::{HealthCheck, InvalidValue, Timing};

use crate::api::Api;
use crate::error::CliError;
use crate::variables::{self, Assignment};

/// How it is to be run. What is not named stays as it was set last.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Memory of each instance, in MiB [default: 256]
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// Share of CPU of each instance: 0.5 or 500m [default: 0.1]
    #[arg(long, value_name = "CORES", value_parser = cpu)]
    cpu: Option<u32>,
    /// Limit of CPU of each instance, or default [default: none]
    #[arg(long, value_name = "CORES")]
    cpu_limit: Option<OrDefault<Cores>>,
    /// Number of instances from now on [default: 1]
    #[arg(long, short = 'n', value_name = "N")]
    pub instances: Option<u32>,
    /// Path that answers below 400 while an instance is well [default: none; GET / until a new one has proved itself]
    #[arg(long, value_name = "PATH", value_parser = health)]
    health: Option<HealthCheck>,
    /// Host header of the health check [default: <app>.<domain>]
    #[arg(long, value_name = "HOST", requires = "health")]
    health_host: Option<String>,
    /// Check health by connection, for what speaks no HTTP/1, such as gRPC
    #[arg(long, conflicts_with = "health")]
    health_tcp: bool,
    /// Take the health check away
    #[arg(long, conflicts_with_all = ["health", "health_tcp"])]
    no_health: bool,
    /// Seconds from the start of an instance to being ready, or default [default: the cluster's, usually 60]
    #[arg(long, value_name = "SECS")]
    start_timeout: Option<OrDefault<u32>>,
    /// Seconds without an exit or a failed probe after which a new instance has proved itself [default: 5, with --health 2]
    #[arg(long, value_name = "SECS")]
    min_healthy: Option<OrDefault<u32>>,
    /// Seconds that all new instances are watched before the old ones stop [default: the cluster's, usually 5]
    #[arg(long, value_name = "SECS")]
    verify: Option<OrDefault<u32>>,
    /// Longest wait for requests that an instance still answers when it is to stop [default: the cluster's, usually 30]
    #[arg(long, value_name = "SECS")]
    drain_timeout: Option<OrDefault<u32>>,
    /// Seconds from SIGTERM to SIGKILL [default: the cluster's, usually 10]
    #[arg(long, value_name = "SECS")]
    stop_grace: Option<OrDefault<u32>>,
    /// Set an environment variable: NAME=VALUE, NAME=- (standard input), NAME=@FILE
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    env: Vec<Assignment>,
    /// Set the environment variables of a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Take along the environment of a release that is not in force
    #[arg(long)]
    pub keep_env: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    /// Command instead of the image's own (Docker's CMD; an entry point of the image gets it as arguments)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Settings {
    /// What to ask for, besides image or build. Files and standard input are read now.
    pub fn request(&self) -> Result<Deploy, CliError> {
        let mut reset = Vec::new();
        let mut value = |setting, given: Option<OrDefault<u32>>| match given {
            Some(OrDefault::Value(value)) => Some(value),
            Some(OrDefault::Default) => {
                reset.push(setting);
                None
            }
            None => None,
        };
        let timing = Timing {
            start_timeout_secs: value(Setting::StartTimeoutSecs, self.start_timeout),
            min_healthy_secs: value(Setting::MinHealthySecs, self.min_healthy),
            verify_secs: value(Setting::VerifySecs, self.verify),
            drain_timeout_secs: value(Setting::DrainTimeoutSecs, self.drain_timeout),
            stop_grace_secs: value(Setting::StopGraceSecs, self.stop_grace),
        };
        timing.check()?;
        let cpu_limit_millis = value(Setting::CpuLimitMillis, self.cpu_limit.map(|limit| limit.map(|cores| cores.0)));
        let set = variables::values(&self.env_file, &self.env)?;
        Ok(Deploy {
            memory_mb: self.memory,
            cpu_millis: self.cpu,
            cpu_limit_millis,
            instances: self.instances,
            command: Some(self.command.clone()).filter(|command| !command.is_empty()),
            health: self.health()?,
            timing,
            reset,
            env: EnvChange { set, keep: self.keep_env, ..EnvChange::default() },
            note: self.note.clone(),
            ..Deploy::default()
        })
    }

    fn health(&self) -> Result<Option<HealthCheck>, InvalidValue> {
        match &self.health {
            _ if self.no_health => Ok(Some(HealthCheck::new(""))),
            _ if self.health_tcp => Ok(Some(HealthCheck::tcp())),
            Some(check) => {
                let check = HealthCheck { host: self.health_host.clone(), ..check.clone() };
                check.check().map(|()| Some(check))
            }
            None => Ok(None),
        }
    }
}

/// Refuses what this cluster would refuse, before anything is made or uploaded.
pub async fn check(wish: &Deploy, api: &Api) -> Result<(), CliError> {
    let cpus = [wish.cpu_millis, wish.cpu_limit_millis];
    if wish.memory_mb.is_none() && wish.instances.is_none() && cpus == [None, None] {
        return Ok(());
    }
    let Some(limits) = api.find::<Meta>("/v1/meta").await?.and_then(|meta| meta.limits) else { return Ok(()) };
    if let Some(memory) = wish.memory_mb {
        limits.check_memory(memory)?;
    }
    if let Some(instances) = wish.instances {
        limits.check_instances(instances)?;
    }
    for cpu in cpus.into_iter().flatten() {
        limits.check_cpu(cpu)?;
    }
    Ok(())
}

/// A value, or the word `default` for what the cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OrDefault<T> {
    Default,
    Value(T),
}

impl<T> OrDefault<T> {
    fn map<U>(self, to: impl FnOnce(T) -> U) -> OrDefault<U> {
        match self {
            Self::Default => OrDefault::Default,
            Self::Value(value) => OrDefault::Value(to(value)),
        }
    }
}

impl<T: FromStr<Err: ToString>> FromStr for OrDefault<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::Default),
            _ => text.parse().map(Self::Value).map_err(|error: T::Err| error.to_string()),
        }
    }
}

/// Thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cores(u32);

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        cpu(text).map(Self)
    }
}

/// Cores, as people write them, in thousandths.
fn cpu(text: &str) -> Result<u32, String> {
    let rule = || format!("cpu \"{text}\" is not valid: write 0.5 or 500m");
    let millis = match text.strip_suffix('m') {
        Some(millis) => return millis.parse().ok().filter(|millis| *millis > 0).ok_or_else(rule),
        None => text.parse::<f64>().map_err(|_| rule())? * 1000.0,
    };
    if (1.0..=1_000_000.0).contains(&millis) {
        // In range, so that nothing is cut off but a fraction of a thousandth.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
        return Ok(millis.round() as u32);
    }
    Err(rule())
}

fn health(text: &str) -> Result<HealthCheck, InvalidValue> {
    let check = HealthCheck::new(text);
    check.check().map(|()| check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_written_in_two_ways() {
        assert_eq!(cpu("0.5"), Ok(500));
        assert_eq!(cpu("2"), Ok(2000));
        assert_eq!(cpu("250m"), Ok(250));
        for bad in ["", "0", "-1", "m", "0m", "1e99", "NaN", "x"] {
            assert!(cpu(bad).unwrap_err().starts_with(&format!("cpu \"{bad}\" is not valid")), "{bad}");
        }
    }

    #[test]
    fn a_value_can_be_the_default() {
        assert_eq!("90".parse(), Ok(OrDefault::Value(90_u32)));
        assert_eq!("default".parse(), Ok(OrDefault::<u32>::Default));
        assert_eq!("0.5".parse(), Ok(OrDefault::Value(Cores(500))));
        assert!("soon".parse::<OrDefault<u32>>().is_err());
    }
}
