//! The counters of releases as Prometheus text, in parts: that of a large table has a hundred megabytes, and neither is it
//! kept whole nor does it keep its writer from everything else.

use crate::table::{BOUNDS, ReleaseStats};
use dinp_common::api::router::ReleaseCounters;
use std::fmt::{Result, Write as _};
use std::iter;
use std::sync::Arc;

/// Releases of one part.
const PART: usize = 250;

/// Writes the lines of one metric and release, the labels of which are given.
type Lines = fn(&mut String, &str, &ReleaseCounters, &ReleaseStats) -> Result;

const METRICS: [(&str, Lines); 3] = [
    ("# TYPE dinp_router_answers_total counter\n", answers),
    ("# TYPE dinp_router_failed_attempts_total counter\n", failed),
    ("# TYPE dinp_router_answer_seconds histogram\n", seconds),
];

/// The text of those that have answered.
pub(crate) fn text(all: Vec<Arc<ReleaseStats>>) -> impl Iterator<Item = String> + Send {
    let all = Arc::new(all);
    METRICS.into_iter().flat_map(move |(title, lines)| {
        let all = all.clone();
        let parts = (0..all.len()).step_by(PART).map(move |from| {
            let part = &all[from..all.len().min(from + PART)];
            part_of(part, lines).expect("a text takes what is written to it")
        });
        iter::once(title.to_owned()).chain(parts)
    })
}

fn part_of(part: &[Arc<ReleaseStats>], lines: Lines) -> std::result::Result<String, std::fmt::Error> {
    let (mut text, mut labels) = (String::new(), String::new());
    for (stats, counters) in part.iter().filter_map(|stats| Some((stats, stats.read()?))) {
        labels.clear();
        write!(labels, "app=\"{}\",release=\"{}\"", counters.app, counters.release)?;
        lines(&mut text, &labels, &counters, stats)?;
    }
    Ok(text)
}

/// Classes that have no answer have no line: most releases have one or two.
fn answers(text: &mut String, labels: &str, counters: &ReleaseCounters, _: &ReleaseStats) -> Result {
    for (class, count) in (1..=5).zip(counters.answers).filter(|(_, count)| *count > 0) {
        writeln!(text, "dinp_router_answers_total{{{labels},class=\"{class}xx\"}} {count}")?;
    }
    Ok(())
}

fn failed(text: &mut String, labels: &str, counters: &ReleaseCounters, _: &ReleaseStats) -> Result {
    writeln!(text, "dinp_router_failed_attempts_total{{{labels}}} {}", counters.failed)
}

fn seconds(text: &mut String, labels: &str, counters: &ReleaseCounters, stats: &ReleaseStats) -> Result {
    // Most of a large text are these lines, which is why they are put together by hand.
    let bucket = format!("dinp_router_answer_seconds_bucket{{{labels},le=\"");
    let within = stats.within();
    for (bound, count) in BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]).zip(within) {
        text.extend([&bucket, bound, "\"} "]);
        writeln!(text, "{count}")?;
    }
    let [.., count] = within;
    let (whole, part) = (counters.micros / 1_000_000, counters.micros % 1_000_000);
    writeln!(text, "dinp_router_answer_seconds_sum{{{labels}}} {whole}.{part:06}")?;
    writeln!(text, "dinp_router_answer_seconds_count{{{labels}}} {count}")
}
