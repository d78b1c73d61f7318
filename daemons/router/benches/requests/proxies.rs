//! The proxies, each in a process of its own on the second core, and what those have used.

use crate::cases::ONE;
use crate::ground::Ground;
use crate::load::drive;
use crate::routes::{PLAIN, Seed};
use crate::{peers, pin};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The peers, in the order of the columns. The first is what ratios are of.
pub(crate) const PROXIES: [&str; 4] = ["dinp", "haproxy", "nginx", "relay"];

/// How long it may take until one passes requests on; a large table is read first.
const START: Duration = Duration::from_secs(60);

/// What is to be started.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) peer: &'static str,
    pub(crate) seed: Seed,
    pub(crate) is_logged: bool,
}

impl Setup {
    pub(crate) fn plain(peer: &'static str) -> Self {
        Self { peer, seed: PLAIN, is_logged: false }
    }
}

/// A proxy in its own process; ended when it is dropped.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    process: Child,
    pub(crate) address: String,
    log: PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Proxy {
    /// Starts it and waits until it passes requests on; none where it is not installed.
    pub(crate) async fn start(ground: &Ground, setup: Setup) -> Option<Self> {
        let Setup { peer, seed, is_logged } = setup;
        let port = dinp_common::testing::free_port();
        let address = format!("127.0.0.1:{port}");
        let dir = ground.dir.path().join(format!("{peer}-{port}"));
        std::fs::create_dir(&dir).unwrap();
        let (config, log) = (dir.join("conf"), dir.join("access.log"));
        let mut output = Stdio::null();
        let mut command = Command::new(match peer {
            "haproxy" => "haproxy".into(),
            "nginx" => "/usr/sbin/nginx".into(),
            _ => std::env::current_exe().unwrap(),
        });
        match peer {
            "dinp" => {
                let log = if is_logged { log.display().to_string() } else { "off".to_owned() };
                command.args(["dinp", &ground.redis.url(), seed.cluster, &dir.display().to_string(), &address, &log]);
                // As in the unit.
                command.env("MIMALLOC_PURGE_DELAY", "0");
            }
            "relay" => {
                command.args(["relay", &address, &ground.app]);
            }
            "haproxy" => {
                std::fs::write(&config, peers::haproxy(&address, &ground.app, ground.connections, is_logged)).unwrap();
                command.arg("-db").arg("-f").arg(&config);
                if is_logged {
                    output = File::create(&log).unwrap().into();
                }
            }
            _ => {
                std::fs::write(&config, peers::nginx(&address, &ground.app, &dir, is_logged)).unwrap();
                command.arg("-c").arg(&config).arg("-e").arg(dir.join("nginx.log"));
            }
        }
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        let process = on_second_core(|| command.spawn()).ok()?;
        let proxy = Self { name: peer, process, address, log };
        proxy.ready().await;
        Some(proxy)
    }

    async fn ready(&self) {
        let begun = Instant::now();
        while drive(&self.address, ONE).await.is_none() {
            assert!(begun.elapsed() < START, "{} does not pass requests on", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let nanos = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// KiB of memory that it has now.
    pub(crate) fn resident(&self) -> f64 {
        self.status("VmRSS:")
    }

    /// The most KiB that it has had since [`Self::forget_highest`].
    pub(crate) fn highest_resident(&self) -> f64 {
        self.status("VmHWM:")
    }

    pub(crate) fn forget_highest(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5").unwrap();
    }

    fn status(&self, field: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Waits until it has no more descriptors open than these.
    pub(crate) async fn has_closed_all_but(&self, descriptors: usize) {
        let begun = Instant::now();
        while self.descriptors() > descriptors {
            assert!(begun.elapsed() < Duration::from_secs(100), "{} does not close connections", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether something stands in its access log.
    pub(crate) fn has_logged(&self) -> bool {
        std::fs::metadata(&self.log).is_ok_and(|file| file.len() > 0)
    }
}

/// What is started here is on the second core from its first instruction on, with all its threads.
fn on_second_core<T>(start: impl FnOnce() -> T) -> T {
    pin(1);
    let started = start();
    pin(0);
    started
}
