//! System calls and instructions of one request, counted by the kernel in rounds of their own: counting costs CPU time.

use crate::cases::Case;
use crate::ground::Ground;
use crate::load::drive;
use crate::proxies::{PROXIES, Proxy};
use crate::report::{Figures, Metric};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const EVENTS: [(&str, Metric); 3] = [
    ("raw_syscalls:sys_enter", per_request("system calls")),
    ("instructions:u", per_request("instructions of the program")),
    ("instructions:k", per_request("instructions of the kernel")),
];

const fn per_request(name: &'static str) -> Metric {
    Metric { name, unit: "per request", targets: &[] }
}

/// The counts do not vary as times do.
const ROUNDS: usize = 3;

/// Requests of a counted round.
const REQUESTS: usize = 4_000;

/// How long a counter may take to take hold of a process.
const ATTACH: Duration = Duration::from_secs(10);

/// What counts here.
#[derive(Clone, Copy, PartialEq)]
enum Counter {
    Perf,
    Strace,
}

pub(crate) async fn measure(ground: &Ground) -> Figures {
    let proxies = ground.start_all().await;
    let mut figures = Figures::new("counts of one request", &PROXIES);
    let Some(counter) = Counter::of_this_machine() else {
        figures.note("Nothing counts system calls or instructions here: neither perf nor strace may.");
        return figures;
    };
    for &case in &ground.cases {
        let case = Case { requests: case.requests.min(REQUESTS), ..case };
        for round in 0..=ground.rounds.min(ROUNDS) {
            for proxy in &proxies {
                let counts = counter.count(ground.dir.path(), proxy, case).await;
                for (what, count) in counts.into_iter().filter(|_| round > 0) {
                    figures.add(case.name, what, proxy.name, count / case.asked() as f64);
                }
            }
        }
    }
    if counter == Counter::Strace {
        figures.note("System calls were counted by strace: perf may not be used here.");
    }
    if figures.of(EVENTS[1].1).next().is_none() {
        figures.note("Instructions could not be counted on this machine.");
    }
    figures
}

impl Counter {
    fn of_this_machine() -> Option<Self> {
        let works = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).arg("true").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if works("perf", &["stat", "-e", EVENTS[0].0]) {
            Some(Self::Perf)
        } else {
            works("strace", &["-c", "-f"]).then_some(Self::Strace)
        }
    }

    /// What the process does while the case is asked, by name.
    async fn count(self, dir: &Path, proxy: &Proxy, case: Case) -> Vec<(Metric, f64)> {
        let file = dir.join("counts");
        let counting = self.start(&file, proxy.process());
        self.holds(counting.id(), proxy.process()).await;
        drive(&proxy.address, case).await.unwrap_or_else(|| panic!("{} failed at {}", proxy.name, case.name));
        end(counting);
        let text = std::fs::read_to_string(&file).unwrap();
        match self {
            Self::Perf => EVENTS.into_iter().filter_map(|(event, name)| Some((name, of_perf(&text, event)?))).collect(),
            Self::Strace => of_strace(&text).map(|calls| (EVENTS[0].1, calls)).into_iter().collect(),
        }
    }

    fn start(self, file: &Path, process: u32) -> Child {
        let mut command = match self {
            Self::Perf => {
                let mut command = Command::new("perf");
                command.args(["stat", "-x", ",", "-e", &EVENTS.map(|(event, _)| event).join(",")]);
                command
            }
            Self::Strace => {
                let mut command = Command::new("strace");
                command.args(["-c", "-f"]);
                command
            }
        };
        command.arg("-o").arg(file).args(["-p", &process.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until the counter has all threads of the process.
    async fn holds(self, counter: u32, process: u32) {
        let begun = Instant::now();
        while !self.is_attached(counter, process) {
            assert!(begun.elapsed() < ATTACH, "the counter does not attach");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // It has opened its counters, and is about to switch them on.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    fn is_attached(self, counter: u32, process: u32) -> bool {
        let entries = |path: String| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut threads = entries(format!("/proc/{process}/task"));
        match self {
            Self::Perf => {
                let is_event = |file: &Path| {
                    std::fs::read_link(file).is_ok_and(|link| link.to_string_lossy().contains("perf_event"))
                };
                entries(format!("/proc/{counter}/fd")).filter(|file| is_event(file)).count() >= threads.count()
            }
            Self::Strace => {
                let tracer = format!("TracerPid:\t{counter}\n");
                threads.all(|thread| {
                    std::fs::read_to_string(thread.join("status")).is_ok_and(|status| status.contains(&tracer))
                })
            }
        }
    }
}

/// Asks the counter for its figures, and waits for them.
fn end(mut counting: Child) {
    kill(Pid::from_raw(counting.id().cast_signed()), Signal::SIGINT).unwrap();
    counting.wait().unwrap();
}

/// The count of an event: the first field of its line, which is no number where the machine has no such counter.
fn of_perf(text: &str, event: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.split(',').nth(2) == Some(event))?;
    line.split(',').next()?.parse().ok()
}

/// All calls: the fourth field of the last line.
fn of_strace(text: &str) -> Option<f64> {
    let line = text.lines().rev().find(|line| line.ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
