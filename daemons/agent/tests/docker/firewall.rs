//! The packet filter in network namespaces of its own: that it is put in force, and what it lets through. These tests
//! need root.

use crate::world::{app, run};
use dinp_agent::firewall::Verdict;
use dinp_common::testing::TestDir;
use serde_json::json;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

const AGENT: &str = env!("CARGO_BIN_EXE_dinp-agent");

/// A configuration of a node with these peers in its last orders.
async fn configure(dir: &TestDir, peers: &serde_json::Value) {
    let path = |name: &str| dir.path().join(name);
    let (bundle, state) = (path("bundle.json"), path("state"));
    std::fs::create_dir(&state).unwrap();
    std::fs::write(path("dinp.toml"), "servers = ['http://10.9.8.7:1980', 'http://no.such.host.invalid:1980']\n")
        .unwrap();
    let settings = format!(
        "denied_addresses = ['10.9.9.0/24']\nbundle_file = '{}'\nstate_dir = '{}'\n",
        bundle.display(),
        state.display()
    );
    std::fs::write(path("agent.toml"), settings).unwrap();
    let bundle_text = json!({
        "cluster": "c1", "node": "node1", "address": "10.0.0.11", "servers": [],
        "secret": format!("node:node1:{}", "0".repeat(64)),
    });
    std::fs::write(bundle, bundle_text.to_string()).unwrap();
    let orders = json!({
        "orders": {"cluster": "c1", "epoch": 1, "holder": "a", "generation": 1, "run": [], "stop": [], "peers": peers},
        "without_env": [],
    });
    let stored =
        dinp_agent::disk::Stored::<Option<dinp_agent::orders::Kept>>::open(state.join("orders"), 0, Default::default());
    let kept = serde_json::from_value(orders).unwrap();
    stored.unwrap().change(|stored| *stored = Some(kept)).await.unwrap();
}

fn bash(namespace: &str, script: &str, arguments: &[&str]) -> String {
    let enter = [&["netns", "exec", namespace, "bash", "-euc", script, AGENT], arguments].concat();
    let output = run("ip", &enter);
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Network namespaces: a node with an app behind its bridge, a router and a stranger beside it.
struct Net {
    names: [String; 4],
    listeners: Vec<Child>,
}

impl Net {
    fn new() -> Self {
        let names = ["node", "app", "router", "stranger"].map(|name| format!("dinp-{name}-{}", std::process::id()));
        for name in &names {
            let made = run("ip", &["netns", "add", name]);
            assert!(made.status.success(), "network namespaces are needed for this test: run it as root");
        }
        let net = Self { names, listeners: Vec::new() };
        let [node, app, router, stranger] = &net.names;
        let plug = |name: &str, address: &str, bridge: &str, link: &str| {
            let script = format!(
                "ip link add {link} type veth peer name eth0 netns {name}; ip link set {link} master {bridge} up; \
                 ip -n {name} link set lo up; ip -n {name} addr add {address}/24 dev eth0; ip -n {name} link set eth0 up"
            );
            bash(node, &script, &[]);
        };
        bash(
            node,
            "for b in dinp0 lan0; do ip link add $b type bridge; ip link set $b up; done; ip link set lo up; \
             ip addr add 172.31.99.1/24 dev dinp0; ip addr add 10.0.0.11/24 dev lan0; \
             echo 1 > /proc/sys/net/ipv4/ip_forward; ip route add 169.254.169.254 via 10.0.0.99; \
             iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 20000 -j DNAT --to 172.31.99.2:8080",
            &[],
        );
        plug(app, "172.31.99.2", "dinp0", "app");
        plug(router, "10.0.0.20", "lan0", "router");
        plug(stranger, "10.0.0.99", "lan0", "stranger");
        run("ip", &["-n", app, "route", "add", "default", "via", "172.31.99.1"]);
        for outside in [router, stranger] {
            run("ip", &["-n", outside, "route", "add", "172.31.99.0/24", "via", "10.0.0.11"]);
        }
        run("ip", &["-n", stranger, "addr", "add", "169.254.169.254/32", "dev", "eth0"]);
        net
    }

    async fn listen(&mut self, place: usize, program: &Path, port: u16) {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.names[place]])
            .arg(program)
            .env("PORT", port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.listeners.push(child.unwrap());
        let begin = Instant::now();
        while !self.connects(place, "127.0.0.1", port) {
            assert!(begin.elapsed() < Duration::from_secs(10), "nothing listens on {port}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn connects(&self, place: usize, address: &str, port: u16) -> bool {
        let script = format!("exec 3<>/dev/tcp/{address}/{port}");
        let connect = ["netns", "exec", &self.names[place], "timeout", "1", "bash", "-c", &script];
        run("ip", &connect).status.success()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for child in &mut self.listeners {
            child.kill().ok();
            child.wait().ok();
        }
        for name in &self.names {
            run("ip", &["netns", "del", name]);
        }
    }
}

const NODE: usize = 0;
const APP: usize = 1;
const ROUTER: usize = 2;
const STRANGER: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn an_app_reaches_routers_as_users_do_and_nothing_else_and_only_routers_reach_it() {
    let dir = TestDir::new("agent-packets");
    configure(&dir, &json!({"routers": ["10.0.0.20"], "monitors": [], "others": ["10.0.0.0/24"]})).await;
    let program = app(dir.path());
    let mut net = Net::new();
    for (place, port) in [(APP, 8080), (ROUTER, 80), (ROUTER, 1982), (ROUTER, 20_000), (STRANGER, 80), (NODE, 1981)] {
        net.listen(place, &program, port).await;
    }
    let cases = [
        (APP, "10.0.0.20", 80, true, "a router, as users do"),
        (APP, "10.0.0.20", 1982, false, "the status of a router"),
        (APP, "10.0.0.20", 20_000, false, "an instance on another node"),
        (APP, "10.0.0.99", 80, false, "another node"),
        (APP, "169.254.169.254", 80, false, "the cloud's metadata"),
        (APP, "10.0.0.11", 1981, false, "its own node"),
        (APP, "172.31.99.1", 1981, false, "its own node by the bridge"),
        (ROUTER, "10.0.0.11", 20_000, true, "an instance from a router"),
        (STRANGER, "10.0.0.11", 20_000, false, "an instance from a stranger"),
        (STRANGER, "172.31.99.2", 8080, false, "an instance past its port"),
        (NODE, "172.31.99.2", 8080, true, "an instance from its own node"),
    ];
    for (place, address, port, _, what) in cases {
        assert!(net.connects(place, address, port), "{what} cannot be reached without a packet filter either");
    }
    bash(&net.names[NODE], r#""$0" --config-dir "$1" firewall"#, &[dir.path().to_str().unwrap()]);
    for (place, address, port, reached, what) in cases {
        assert_eq!(net.connects(place, address, port), reached, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_put_in_force_again_whatever_others_did_to_them() {
    let dir = TestDir::new("agent-firewall");
    configure(&dir, &json!({"routers": ["10.0.0.20"]})).await;
    let net = Net::new();
    let node = &net.names[NODE];
    let config = dir.path().to_str().unwrap();
    let script = r#""$0" --config-dir "$1" firewall; iptables -I INPUT 1 -j ACCEPT; iptables -F DINP-APPS;
        iptables -I FORWARD 1 -j ACCEPT; "$0" --config-dir "$1" firewall; iptables-save -t filter"#;
    let rules = bash(node, script, &[config]);
    for (rule, times) in [
        ("-A INPUT -j DINP-APPS-IN\n-A INPUT -j ACCEPT\n", 1),
        ("-A FORWARD -j DOCKER-USER\n-A FORWARD -j ACCEPT\n", 1),
        ("-j DOCKER-USER\n", 1),
        ("-A DOCKER-USER -j DINP-APPS\n", 1),
        ("-A DINP-APPS -d 10.9.8.7/32 -j REJECT", 1),
        ("-A DINP-APPS -d 10.9.9.0/24 -j REJECT", 1),
        ("-A DINP-APPS -s 10.0.0.20/32 -o dinp0 -j RETURN", 1),
    ] {
        assert_eq!(rules.matches(rule).count(), times, "{rule} in {rules}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_at_the_socket_gets_an_answer_and_the_rules() {
    let dir = TestDir::new("agent-asked");
    configure(&dir, &json!({})).await;
    let net = Net::new();
    let socket = dir.path().join("socket");
    // As systemd does it: the program starts with the first question.
    let mut service = Command::new("ip")
        .args(["netns", "exec", &net.names[NODE], "systemd-socket-activate", "--fdname=firewall", "-l"])
        .arg(&socket)
        .args([AGENT, "--config-dir", dir.path().to_str().unwrap(), "firewall"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => break stream,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(10), "connect: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let verdict: Verdict = serde_json::from_str(&answer).unwrap();
    assert_eq!(verdict, Verdict { fault: None, unknown: ["no.such.host.invalid".to_owned()].into() });
    assert!(service.wait().unwrap().success());
    let rules = bash(&net.names[NODE], "iptables -S", &[]);
    assert!(rules.contains("-A INPUT -j DINP-APPS-IN\n"), "{rules}");
}
