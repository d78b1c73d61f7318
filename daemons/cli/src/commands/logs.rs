//! `dinp logs`: output of all instances of an app, merged as it comes; of the last ended ones where none runs.

use clap::Args;
use dinp_common::api::agent::LogLine;
use dinp_common::api::control::InstanceDigits;
use dinp_common::model::{AppName, InstanceId};
use http::Method;

use super::app;
use crate::api::{Api, with_query};
use crate::error::CliError;
use crate::output::{Output, time};

/// Colours of instances: all but black, white and the red of errors.
const COLORS: [&str; 5] = ["32", "33", "34", "35", "36"];

const EXAMPLES: &str = "\
Examples:
  dinp logs hello -f                    what all instances write, as it comes, new ones too
  dinp logs hello --previous            what those wrote that have ended: crashed, replaced or taken back
  dinp logs hello --instance 1f3a5b7c   one instance, by the digits that `dinp ps` and `dinp events` show

The last output of an instance that has ended is kept for at least a day, of an app's last ten.";

/// Arguments of `dinp logs`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Logs {
    /// The app
    app: AppName,
    /// Go on with what comes
    #[arg(long, short = 'f')]
    follow: bool,
    /// Last lines of each instance to begin with
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    tail: u32,
    /// Only this instance, running or ended, by its id or the digits that `dinp ps` shows
    #[arg(long, short = 'i', value_name = "ID")]
    instance: Option<InstanceDigits>,
    /// Only instances that have ended
    #[arg(long, short = 'p', conflicts_with = "follow")]
    previous: bool,
    /// Begin each line with its time
    #[arg(long, short = 't')]
    timestamps: bool,
}

/// Runs `dinp logs`.
pub async fn run(logs: &Logs, api: &Api, out: &Output) -> Result<(), CliError> {
    let instance = logs.instance.as_ref().map(InstanceDigits::to_string);
    let tail = logs.tail.to_string();
    let path = with_query(
        &format!("{}/logs", app::path(&logs.app)),
        &[
            ("instance", instance.as_deref()),
            ("tail", Some(&tail)),
            ("follow", Some(if logs.follow { "true" } else { "false" })),
            ("previous", logs.previous.then_some("true")),
        ],
    );
    let mut response = api.send(api.request(Method::GET, &path)?).await?;
    let mut pending = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| api.broken(error))? {
        pending.extend_from_slice(&chunk);
        let whole = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = pending.drain(..whole).collect();
        print(&lines, logs, api, out)?;
    }
    print(&pending, logs, api, out)
}

fn print(lines: &[u8], logs: &Logs, api: &Api, out: &Output) -> Result<(), CliError> {
    if out.is_json() {
        return if lines.is_empty() { Ok(()) } else { out.raw(lines) };
    }
    let mut text = String::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let line: LogLine = serde_json::from_slice(line).map_err(|error| api.garbled(error))?;
        let time = if logs.timestamps { format!("{} ", time(line.at)) } else { String::new() };
        text += &format!("{time}{} {}\n", out.paint(line.instance.short(), color(&line.instance)), line.text);
    }
    out.raw(text.as_bytes())
}

/// The same colour for the same instance, always.
fn color(instance: &InstanceId) -> &'static str {
    let sum: usize = instance.as_str().bytes().map(usize::from).sum();
    COLORS[sum % COLORS.len()]
}
