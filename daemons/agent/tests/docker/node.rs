//! What is wrong with a node itself: a full disk, an engine that is away, a packet filter that is not in force.

use crate::doubles::Full;
use crate::stop;
use crate::world::{Heard, World, ask, docker, inspect, run, spec};
use dinp_common::api::agent::{InstanceState::*, NodeFaultKind};
use dinp_common::testing::TestDir;
use std::path::Path;
use std::time::{Duration, Instant};

fn faults(heard: &Heard, kind: NodeFaultKind) -> Vec<String> {
    let all = heard.last.iter().flat_map(|last| &last.faults);
    all.filter(|fault| fault.kind == kind).map(|fault| fault.detail.clone()).collect()
}

fn acknowledged(heard: &Heard) -> u64 {
    heard.last.as_ref().map_or(0, |last| last.seen.epoch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_takes_stop_orders() {
    let world = World::new().await;
    let (web, next) = (spec(1), spec(2));
    world.order(&[&web], |_| {});
    world.until_state(&web, Ready).await;
    let full = Full::begin(&world.dir.path().join("orders"));
    world.order(&[&next], |orders| {
        orders.epoch = 2;
        orders.stop = vec![stop(&web)];
    });
    let heard = world.until("it is stopped", |heard| heard.removed.contains(&web.instance)).await;
    assert_eq!(acknowledged(&heard), 1, "what is not written is not acknowledged");
    assert!(!heard.instances.contains_key(&next.instance), "and nothing is started for it");
    let told = |heard: &Heard| faults(heard, NodeFaultKind::Disk).iter().any(|fault| fault.contains("No space left"));
    world.until("the fault", told).await;
    drop(full);
    let heard = world.until("it is well again", |heard| acknowledged(heard) == 2 && !told(heard)).await;
    assert_eq!(heard.last.unwrap().seen.proof, "proof of 2");
    world.until_state(&next, Ready).await;
}

/// A small file system of its own.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: &Path) -> Self {
        std::fs::create_dir(path).unwrap();
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=12m", "tmpfs", path.to_str().unwrap()]);
        assert!(mounted.status.success(), "mount a tmpfs: run this test as root");
        Self(path.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &["--lazy", self.0.to_str().unwrap()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_have_filled_still_holds_orders_and_ports() {
    let outer = TestDir::new("agent-small");
    let small = Small::mount(&outer.path().join("state"));
    let state_dir = small.0.clone();
    let world = World::with(|config| config.state_dir = state_dir).await;
    world.until("a report", |heard| heard.full > 0).await;
    let filled = std::fs::write(small.0.join("filler"), vec![1; 64 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let web = spec(1);
    world.order(&[&web], |orders| orders.epoch = 2);
    world.until("acknowledged", |heard| acknowledged(heard) == 2).await;
    world.until_state(&web, Ready).await;
    world.order(&[], |orders| {
        orders.epoch = 2;
        orders.stop = vec![stop(&web)];
    });
    world.until("gone", |heard| heard.removed.contains(&web.instance)).await;
    // No file of the agent is among the faults.
    let told = |heard: &Heard| faults(heard, NodeFaultKind::Disk).iter().all(|fault| fault.contains("has 0 MiB left"));
    let is = |heard: &Heard| !faults(heard, NodeFaultKind::Disk).is_empty() && told(heard);
    world.until("the fault", is).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_orders_are_acknowledged_and_no_instance_is_spoken_of() {
    let mut world = World::with(|config| config.docker.socket = "/nonexistent/docker.sock".into()).await;
    let (web, old) = (spec(1), spec(2));
    world.order(&[&web], |orders| {
        orders.epoch = 3;
        orders.stop = vec![stop(&old)];
    });
    let mut reports = 0;
    let heard = world
        .until("acknowledged, twice", |heard| {
            reports += u32::from(acknowledged(heard) == 3);
            reports > 1
        })
        .await;
    assert_eq!((heard.full, heard.instances.len(), heard.removed.len()), (0, 0, 0), "nothing is known of containers");
    assert!(heard.last.unwrap().docker_error.is_some());
    world.agent_stops().await;
    world.forget();
    world.agent_starts();
    world.until("it is on the disk", |heard| acknowledged(heard) == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_packet_filter_nothing_is_started() {
    let mut world = World::new().await;
    world.agent_stops().await;
    world.filter.fails_with(Some("iptables failed: no such table"));
    world.agent_starts();
    let web = spec(1);
    world.order(&[&web], |_| {});
    let waiting = world.until_state(&web, BackOff).await;
    assert_eq!(waiting.reason, "the packet filter is not in force: iptables failed: no such table");
    assert_eq!(inspect(&web, "{{.State.Status}}"), "created");
    assert_eq!(faults(&world.heard(), NodeFaultKind::Firewall), [waiting.reason]);
    world.filter.fails_with(None);
    world.until_state(&web, Ready).await;
    world.until("no fault", |heard| faults(heard, NodeFaultKind::Firewall).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_the_engines_disk_is_stopped_by_name_and_nobody_else() {
    let mut world = World::new().await;
    let (greedy, quiet) = (spec(1), spec(2));
    world.order(&[&greedy, &quiet], |_| {});
    world.until_state(&greedy, Ready).await;
    world.until_state(&quiet, Ready).await;
    let started = inspect(&quiet, "{{.State.StartedAt}}");
    let dir = TestDir::new("agent-written");
    let written = dir.path().join("written");
    std::fs::write(&written, vec![7; 70 << 20]).unwrap();
    docker(&["cp", written.to_str().unwrap(), &format!("{}:/written", inspect(&greedy, "{{.Id}}"))]);
    world.agent_stops().await;
    // No disk has so much free.
    world.config.disk.reserve_mb = u32::MAX;
    world.agent_starts();
    let stopped = "stopped: it had written 70 MiB to its disk, the node had ";
    world.until("its end", |heard| heard.reasons.iter().any(|reason| reason.starts_with(stopped))).await;
    let again =
        |heard: &Heard| heard.instances.get(&greedy.instance).is_some_and(|r| r.state == Ready && r.restarts == 1);
    let heard = world.until("it begins anew", again).await;
    ask(&heard.instances[&greedy.instance], "/health").await.unwrap();
    let size = docker(&[
        "ps",
        "-as",
        "--filter",
        &format!("label=dinp.instance={}", greedy.instance),
        "--format",
        "{{.Size}}",
    ]);
    assert!(size.starts_with("0B"), "what it had written is gone: {size}");
    assert_eq!(inspect(&quiet, "{{.State.StartedAt}}"), started);
}

/// Makes an image of an app that is years old; it goes with the test.
struct OldImage(String);

impl OldImage {
    fn load(name: &str) -> Self {
        let name = format!("localhost/dinp-agent-{name}-{}:1", std::process::id());
        let dir = TestDir::new("agent-old-image");
        let script = r#"cd "$2"; docker save "$0" | tar -x
            for file in $(grep -rl '"created"' .); do
                sed -i -e 's/"created":"[^"]*"/"created":"2020-01-01T00:00:00Z"/g' -e "s|.dinp.testbed.:.1.|\"dinp.image.app\":\"$1\"|g" "$file"
            done
            sed -i "s|$0|$1|g" manifest.json; rm -f index.json oci-layout repositories; tar -c . | docker load"#;
        let made = run("bash", &["-euc", script, crate::world::image(), &name, dir.path().to_str().unwrap()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(name)
    }

    fn is_there(&self) -> bool {
        run("docker", &["image", "inspect", &self.0]).status.success()
    }
}

impl Drop for OldImage {
    fn drop(&mut self) {
        run("docker", &["rmi", "--force", &self.0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_apps_that_nobody_needs_go_when_space_is_short_and_nobody_is_stopped_for_it() {
    let (needed, unneeded) = (OldImage::load("needed"), OldImage::load("unneeded"));
    let world = World::with(|config| (config.disk.low_mb, config.disk.reserve_mb) = (u32::MAX, 0)).await;
    let mut web = spec(1);
    web.image = needed.0.parse().unwrap();
    world.order(&[&web], |_| {});
    let report = world.until_state(&web, Ready).await;
    world.until("the fault", |heard| !faults(heard, NodeFaultKind::Disk).is_empty()).await;
    let begin = Instant::now();
    while unneeded.is_there() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the image stays");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(needed.is_there());
    ask(&report, "/").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_bears_its_limits_and_its_ticket() {
    let mut world = World::with(|config| config.container.read_only_root = true).await;
    let mut web = spec(1);
    web.ticket = "k1.0a0b".into();
    world.order(&[&web], |_| {});
    let report = world.until_state(&web, Ready).await;
    assert_eq!(report.ticket, "k1.0a0b");
    let template = "{{.HostConfig.Ulimits}} {{.HostConfig.ReadonlyRootfs}} {{len .HostConfig.Tmpfs}} {{.HostConfig.LogConfig.Type}}";
    assert!(
        inspect(&web, template).starts_with("[core=0:0 nofile=16384:16384] true 3 "),
        "{}",
        inspect(&web, template)
    );
    let env = ask(&report, "/env").await.unwrap();
    assert!(env.lines().any(|line| line == "TINI_KILL_PROCESS_GROUP=1"), "{env}");
    world.agent_stops().await;
    world.forget();
    world.agent_starts();
    let heard = world.until("a full report", |heard| heard.full > 0).await;
    assert_eq!(heard.instances[&web.instance].ticket, "k1.0a0b", "kept with the container");
}
