//! What a package costs on its way to a pushed image, beside `docker build` and `docker push`, buildah, and the floor: what
//! reading, hashing, packing and storing the same bytes costs by itself.
//!
//! `scripts/bench build [--case WORDS] [--rounds N] [--quick] [--json]`. The builder is the real program; registry with
//! accounts, MariaDB and Docker Engine are those of the distribution.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark that cannot measure fails")]

#[path = "../tests/support/mod.rs"]
mod support;

use dinp_common::testing::{Figure, TestDir};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{PASSWORD, World, sh};

const TEMPLATE: &str = "COPY app/ {{app_dir}}/\nWORKDIR {{app_dir}}\nUSER 1000:1000\nENV PORT=8080\nCMD [\"/app/run\"]";

/// The same for peers, who unpack by themselves.
const DOCKERFILE: &str = "ADD package.tar.gz /app/\nWORKDIR /app\nUSER 1000:1000\nENV PORT=8080\nCMD [\"/app/run\"]\n";

/// Where files come from: what real packages are made of.
const FILES: [&str; 3] = ["/usr/lib/python3", "/usr/lib/x86_64-linux-gnu", "/usr/share"];

const MIB: u64 = 1 << 20;

/// What is built.
#[derive(Clone, Copy)]
enum Case {
    /// A package of so many MiB.
    Large(u64),
    /// A package of so many small files.
    Many(u32),
}

const CASES: [(&str, Case); 5] = [
    ("1 MB", Case::Large(1)),
    ("10 MB", Case::Large(10)),
    ("100 MB", Case::Large(100)),
    ("500 MB", Case::Large(500)),
    ("20,000 files", Case::Many(20_000)),
];

/// Time, CPU time, and memory at most where it was seen.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall: f64,
    cpu: f64,
    memory: f64,
}

type Costs = BTreeMap<&'static str, Vec<Cost>>;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let after = |name: &str| arguments.iter().skip_while(|word| *word != name).nth(1);
    let rounds = after("--rounds").map_or(if has("--quick") { 1 } else { 3 }, |count| count.parse().unwrap());
    let wanted = |name: &str| match after("--case") {
        Some(words) => name.contains(words.as_str()),
        None => !has("--quick") || name == "10 MB",
    };
    let mut bench = Bench::start().await;
    let mut figures = Vec::new();
    for (number, (name, case)) in CASES.into_iter().enumerate().filter(|(_, (name, _))| wanted(name)) {
        let costs = bench.measure(number, case, rounds).await;
        if !has("--json") {
            print(name, &costs);
        }
        figures.extend(as_figures(name, &costs));
    }
    if has("--json") {
        println!("{}", serde_json::to_string(&figures).unwrap());
    }
    bench.world.stop_program().await;
}

struct Bench {
    world: World,
    pid: u32,
    dir: TestDir,
    has_buildah: bool,
}

impl Bench {
    async fn start() -> Self {
        let mut world = World::start(&[]).await;
        world.stop_builder().await;
        let dir = TestDir::new("bench-build");
        let root = dir.path().join("root.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&root).unwrap());
        for file in
            ["/bin/busybox", "/usr/bin/bash", "/usr/bin/perl"].into_iter().filter(|file| Path::new(file).exists())
        {
            tar.append_path_with_name(file, file.trim_start_matches('/')).unwrap();
        }
        tar.finish().unwrap();
        world.push_base("base-x", &root.display().to_string(), ["ENV PATH=/bin"].into_iter());
        world.runtime_on("{registry}/dinp/base-x:{base_tag}", "x", TEMPLATE);
        let pid = world.start_program().await;
        let has_buildah = Command::new("buildah").arg("--version").output().is_ok_and(|output| output.status.success());
        Self { world, pid, dir, has_buildah }
    }

    async fn measure(&mut self, number: usize, case: Case, rounds: usize) -> Costs {
        let mut costs = Costs::new();
        // The first fetches the base wherever it is to be.
        for round in 0..=rounds {
            let package = package(case, round);
            let path = self.dir.path().join("package.tar.gz");
            std::fs::write(&path, &package).unwrap();
            let version = format!("v{number}-{round}");
            let mut all = vec![
                ("dinp", Some(self.ours(&version, package.clone()).await)),
                ("dinp, again", Some(self.ours(&format!("{version}-again"), package.clone()).await)),
                ("floor", Some(self.floor(&package).await)),
                ("docker", Some(self.docker(&version))),
            ];
            if self.has_buildah {
                all.push(("buildah", self.buildah(&version)));
            }
            for (name, cost) in all {
                if round > 0
                    && let Some(cost) = cost
                {
                    costs.entry(name).or_default().push(cost);
                }
            }
        }
        costs
    }

    /// The builder: from the first byte of the upload until the record says that it ended.
    async fn ours(&self, version: &str, package: Vec<u8>) -> Cost {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").unwrap();
        let (begun, before) = (Instant::now(), cpu_of(self.pid));
        let id = self.world.begin("web", version, "x", package).await;
        loop {
            let build = self.world.build(id).await;
            if build.status.is_final() {
                assert!(build.image.is_some(), "{}", build.reason);
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let wall = begun.elapsed().as_secs_f64();
        Cost { wall, cpu: cpu_of(self.pid) - before, memory: highest_memory(self.pid) }
    }

    /// The same bytes read, hashed, packed and stored, one after the other.
    async fn floor(&self, package: &[u8]) -> Cost {
        let (begun, before) = (Instant::now(), cpu_of(std::process::id()));
        let packed = tokio::task::block_in_place(|| {
            std::hint::black_box(Sha256::digest(package));
            let (mut unpacked, mut hash) = (MultiGzDecoder::new(package), Sha256::new());
            let mut packed = GzEncoder::new(Vec::new(), Compression::new(2));
            let mut piece = vec![0; 1 << 20];
            loop {
                let count = unpacked.read(&mut piece).unwrap();
                if count == 0 {
                    break;
                }
                hash.update(&piece[..count]);
                packed.write_all(&piece[..count]).unwrap();
            }
            std::hint::black_box(hash.finalize());
            packed.finish().unwrap()
        });
        std::hint::black_box(Sha256::digest(&packed));
        self.world.registry.put_blob("floor/floor", packed).await;
        Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu_of(std::process::id()) - before, memory: 0.0 }
    }

    fn docker(&self, version: &str) -> Cost {
        let address = self.world.registry.push_address();
        let image = format!("{address}/docker/web:{version}");
        let context = self.context(&address);
        let engine = engine_processes();
        let cpu = || engine.iter().map(|pid| cpu_of(*pid)).sum::<f64>();
        let (begun, before) = (Instant::now(), cpu());
        self.world.docker(&["build", "-q", "--no-cache", "-t", &image, &context.display().to_string()]);
        self.world.docker(&["push", "-q", &image]);
        let cost = Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu() - before, memory: 0.0 };
        sh("docker", &["rmi", "-f", &image]);
        cost
    }

    fn buildah(&self, version: &str) -> Option<Cost> {
        let address = self.world.registry.push_address();
        let image = format!("{address}/buildah/web:{version}");
        let context = self.context(&address);
        let storage = self.dir.path().join("buildah").display().to_string();
        let run = |arguments: &[&str]| {
            let mut command = Command::new("buildah");
            command.args(["--root", &storage, "--runroot", &format!("{storage}-run")]).args(arguments);
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let account = format!("builder:{PASSWORD}");
        let access = ["--tls-verify=false", "--creds", &account];
        let (begun, before) = (Instant::now(), cpu_of_children());
        let context = context.display().to_string();
        let is_done = run(&[&["bud"], &access[..], &["--no-cache", "-t", &image, &context]].concat())
            && run(&[&["push"], &access[..], &[&image]].concat());
        let cost = Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu_of_children() - before, memory: 0.0 };
        run(&["rmi", "-f", &image]);
        is_done.then_some(cost)
    }

    fn context(&self, address: &str) -> PathBuf {
        let text = format!("FROM {address}/dinp/base-x:test\n{DOCKERFILE}");
        let context = self.dir.path().join("context");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), text).unwrap();
        std::fs::copy(self.dir.path().join("package.tar.gz"), context.join("package.tar.gz")).unwrap();
        context
    }
}

/// A package as people make it: files of this machine, by `tar -cz`; each round's has another content.
fn package(case: Case, round: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::new(6)));
    let mut add = |path: String, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, content).unwrap();
    };
    add("run".into(), format!("round {round}").as_bytes());
    match case {
        Case::Many(count) => {
            for number in 0..count {
                let text = format!("file {number} of round {round}\n").repeat(20);
                add(format!("d{}/e{}/f{number}", number % 100, number % 7), text.as_bytes());
            }
        }
        Case::Large(size) => {
            let mut left = FILES.iter().map(PathBuf::from).collect::<Vec<_>>();
            left.reverse();
            let (mut number, mut packed) = (0_u64, 0);
            let mut found = Vec::new();
            while let Some(path) = left.pop() {
                let Ok(kind) = path.symlink_metadata() else { continue };
                if kind.is_dir() {
                    let mut below: Vec<_> =
                        std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
                    below.sort();
                    left.extend(below.into_iter().rev());
                } else if kind.is_file() && kind.len() < 20 * MIB {
                    found.push(path);
                }
            }
            // Of a small machine all files are taken again.
            for path in found.iter().cycle() {
                if packed >= size * MIB {
                    break;
                }
                let content = std::fs::read(path).unwrap();
                number += 1;
                add(format!("d{}/f{number}", number % 50), &content);
                // To know exactly would be to pack twice.
                packed += content.len() as u64 * 2 / 5;
            }
        }
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Seconds of CPU time of a process, and of its children that have ended.
fn cpu_of(pid: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Linux counts in hundredths of a second for programs, on every architecture.
    fields[11..15].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn cpu_of_children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// MiB that a process has had at most since that was last forgotten.
fn highest_memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// The daemons of the Engine of this machine.
fn engine_processes() -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_engine = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        ["dockerd", "containerd"].contains(&name.trim())
    };
    pids.filter(is_engine).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(name: &str, costs: &Costs) {
    println!("{name:<16} {:>10} {:>10} {:>10} {:>14}", "s", "s of CPU", "MiB", "dinp to it");
    for (peer, rounds) in costs {
        let of = |get: fn(&Cost) -> f64| median(rounds.iter().map(get).collect());
        let ratio = ratio(costs, peer, |cost| cost.wall);
        println!(
            "  {peer:<14} {:>10.2} {:>10.2} {:>10.0} {ratio:>14.2}",
            of(|c| c.wall),
            of(|c| c.cpu),
            of(|c| c.memory)
        );
    }
}

fn ratio(costs: &Costs, peer: &str, get: fn(&Cost) -> f64) -> f64 {
    median(costs["dinp"].iter().zip(&costs[peer]).map(|(ours, theirs)| get(ours) / get(theirs)).collect())
}

fn as_figures(case: &str, costs: &Costs) -> Vec<Figure> {
    let of = |name: &str, get: fn(&Cost) -> f64| median(costs[name].iter().map(get).collect());
    let mut figures = vec![
        Figure::alone(case, "memory at most", "MiB", of("dinp", |cost| cost.memory), Some(64.0)),
        Figure::alone(case, "wall time of a known package", "s", of("dinp, again", |cost| cost.wall), None),
    ];
    for peer in costs.keys().filter(|peer| !peer.starts_with("dinp")) {
        let target = match *peer {
            "docker" if case == "100 MB" => Some(0.2),
            "floor" => Some(1.5),
            "buildah" => Some(1.0),
            _ => None,
        };
        for (metric, get, target) in
            [("wall time", (|cost| cost.wall) as fn(&Cost) -> f64, target), ("CPU time", |cost| cost.cpu, None)]
        {
            let figure = Figure::alone(case, metric, "s", of("dinp", get), None);
            figures.push(figure.beside(peer, of(peer, get), ratio(costs, peer, get), target));
        }
    }
    figures
}
