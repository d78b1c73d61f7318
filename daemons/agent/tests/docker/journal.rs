//! What instances write, in a journal that the test plays.

use crate::world::{World, ask, spec};
use dinp_common::api::agent::InstanceState::Ready;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A journal: the entries that it was sent, as texts.
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let entries = Arc::new(Mutex::new(Vec::new()));
        let kept = entries.clone();
        // It ends with the process: nobody else has the socket.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                kept.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        Self(entries)
    }

    fn count(&self, text: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|entry| entry.contains(text)).count()
    }

    async fn until(&self, text: &str, count: usize) {
        let begin = Instant::now();
        while self.count(text) < count {
            assert!(begin.elapsed() < Duration::from_secs(40), "{text:?} is not there {count} times");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_bear_the_fields_of_their_instance_and_come_once_across_a_restart_of_the_agent() {
    let dir = dinp_common::testing::TestDir::new("agent-journal");
    let socket = dir.path().join("socket");
    let journal = Journal::at(&socket);
    let mut world = World::with(|config| config.logs.journal_socket = socket).await;
    let web = spec(1);
    world.order(&[&web], |_| {});
    let report = world.until_state(&web, Ready).await;
    let asked = dinp_common::api::unix_millis();
    ask(&report, "/blank").await.unwrap();
    journal.until("GET /blank", 1).await;
    let field = |name: &str, value: &str| {
        let length = (value.len() as u64).to_le_bytes().map(char::from);
        format!("{name}\n{}{value}\n", length.iter().collect::<String>())
    };
    let entries = journal.0.lock().unwrap().clone();
    let entry = entries.iter().find(|entry| entry.contains("GET /blank")).unwrap();
    for (name, value) in [
        ("SYSLOG_IDENTIFIER", "web"),
        ("DINP_APP", "web"),
        ("DINP_INSTANCE", web.instance.as_str()),
        ("DINP_RELEASE", "7"),
        ("DINP_NODE", "node1"),
        ("DINP_STREAM", "stdout"),
        ("MESSAGE", "GET /blank"),
    ] {
        assert!(entry.contains(&field(name, value)), "{name} is not {value}: {entry:?}");
    }
    journal.until(&field("MESSAGE", ""), 1).await;
    // What has been handed on is written down each second.
    let position = world.dir.path().join("forwarded.json");
    let handed_on = || -> Option<i64> {
        let all: serde_json::Value = serde_json::from_slice(&std::fs::read(&position).ok()?).ok()?;
        all[web.instance.as_str()].as_i64()
    };
    let begin = Instant::now();
    while handed_on().is_none_or(|at| at < asked) {
        assert!(begin.elapsed() < Duration::from_secs(10), "it is not written down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    world.agent_stops().await;
    ask(&report, "/meanwhile").await.unwrap();
    world.agent_starts();
    journal.until("GET /meanwhile", 1).await;
    ask(&report, "/after").await.unwrap();
    journal.until("GET /after", 1).await;
    assert_eq!([journal.count("GET /blank"), journal.count("GET /meanwhile")], [1, 1]);
}

/// One noisy app silenced all logs of a node.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_cut_and_said_and_silences_nobody_else() {
    let dir = dinp_common::testing::TestDir::new("agent-journal");
    let socket = dir.path().join("socket");
    let journal = Journal::at(&socket);
    let world = World::with(|config| {
        config.logs.journal_socket = socket;
        config.logs.journal_burst_bytes = 64 * 1024;
        config.logs.journal_bytes_per_sec = 1024;
    })
    .await;
    let (noisy, quiet) = (spec(1), spec(2));
    world.order(&[&noisy, &quiet], |_| {});
    let report = world.until_state(&noisy, Ready).await;
    let other = world.until_state(&quiet, Ready).await;
    journal.until("listening", 2).await;
    ask(&report, "/flood").await.unwrap();
    journal.until("lines were left out, more than 1024 bytes a second", 1).await;
    ask(&other, "/quiet").await.unwrap();
    journal.until("GET /quiet", 1).await;
    let through = journal.count("of a flood");
    assert!((100..2_000).contains(&through), "{through} of 20000");
}
