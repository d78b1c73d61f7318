//! What one request costs the router, beside HAProxy, nginx and a relay that understands nothing.
//!
//! ```text
//! scripts/bench requests [SECTION...] [--rounds N] [--case WORDS] [--proxy NAME] [--json]
//!
//!   --cpu      CPU time per request (what is measured where no section is named)
//!   --rate     latencies at half of the peak of the slowest, each counted from when its request was due
//!   --counts   system calls and instructions per request
//!   --hosts    CPU time per request with 100,000 hosts and 300,000 endpoints, to that with one host
//!   --log      CPU time per request with an access log, to that without
//!   --tunnels  5,000 websockets: memory of each, CPU time per message
//!   --bodies   1 GiB down and 1 GiB up: CPU time, most memory
//!   --idle     10,000 idle connections: memory of each, and what is left of it
//!   --all      all of these
//! ```
//!
//! Client and instance run in this process on the first core, each proxy in its own process on the second, one thread
//! each. Rounds of all proxies are interleaved, because the speed of a shared machine changes from one minute to the
//! next: what counts is the ratio within a round, of which the median is shown.

#![allow(missing_docs, clippy::unwrap_used)]

mod bodies;
mod cases;
mod counts;
mod cpu;
mod dinp;
mod ground;
mod idle;
mod instance;
mod load;
mod peers;
mod proxies;
mod rate;
mod report;
mod routes;
mod tunnels;

use ground::Ground;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use report::Figures;
use std::time::{Duration, Instant};

/// In the order in which they are measured.
const SECTIONS: [&str; 8] = ["--cpu", "--rate", "--counts", "--hosts", "--log", "--tunnels", "--bodies", "--idle"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dinp", redis, cluster, state, http, log] => {
            return runtime.block_on(dinp::run(redis, cluster, state.as_ref(), http, log));
        }
        ["relay", from, to] => return runtime.block_on(peers::relay(from, to)),
        _ => {}
    }
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let after = |name: &str| arguments.iter().skip_while(|word| *word != name).nth(1).map(String::as_str);
    let rounds = if has("--quick") { 1 } else { 5 };
    let rounds = after("--rounds").map_or(rounds, |count| count.parse().unwrap());
    let named: Vec<&str> = SECTIONS.into_iter().filter(|section| has(section) || has("--all")).collect();
    let sections = if named.is_empty() { vec![SECTIONS[0]] } else { named };
    pin(0);
    runtime.block_on(async {
        let ground = Ground::prepare(rounds, after("--case"), after("--proxy")).await;
        let mut all = Vec::new();
        for section in sections {
            let (begun, before) = (Instant::now(), waited());
            let mut figures = measure(section, &ground).await;
            note_company(&mut figures, (waited() - before).div_duration_f64(begun.elapsed()));
            // A section takes minutes: what is known is shown.
            if !has("--json") {
                figures.iter().for_each(Figures::print);
            }
            all.extend(figures);
        }
        if has("--json") {
            let figures: Vec<_> = all.iter().flat_map(Figures::figures).collect();
            println!("{}", serde_json::to_string(&figures).unwrap());
        }
    });
}

async fn measure(section: &str, ground: &Ground) -> Vec<Figures> {
    match section {
        "--rate" => rate::measure(ground).await,
        "--counts" => vec![counts::measure(ground).await],
        "--hosts" => vec![cpu::of_hosts(ground).await],
        "--log" => vec![cpu::of_log(ground).await],
        "--tunnels" => vec![tunnels::measure(ground).await],
        "--bodies" => vec![bodies::measure(ground).await],
        "--idle" => vec![idle::measure(ground).await],
        _ => vec![cpu::of_cases(ground).await],
    }
}

/// How long this thread has waited for its core, though it had something to do.
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').nth(1).unwrap().parse().unwrap())
}

/// Says so where something else runs on the client's core: then latencies are not the proxies'.
fn note_company(figures: &mut [Figures], waited: f64) {
    if let Some(last) = figures.last_mut().filter(|_| waited > 0.02) {
        last.note(format!(
            "The client waited for its core {:.0} % of the time: this machine does other things.",
            waited * 100.0
        ));
    }
}

/// Puts this thread, and all that it starts from now on, onto one core.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}
