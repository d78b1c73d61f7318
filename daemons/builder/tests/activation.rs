//! The real program on a socket that it inherits, with nothing else around it there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dinp_common::testing::{TestDir, free_port};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn config(dir: &TestDir, more: &str) {
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    write("mysql", "x".into());
    write("push", "builder:x".into());
    let cluster = format!(
        "[mysql]\nport = {}\npassword_file = \"{}\"\n[registry]\naddress = \"127.0.0.1:5000\"\ncredential_file = \"{}\"\n",
        free_port(),
        path("mysql"),
        path("push")
    );
    write("dinp.toml", cluster);
    write(
        "builder.toml",
        format!("state_dir = \"{}\"\ndocker_socket = \"{}\"\n{more}", path("state"), path("none.sock")),
    );
    std::fs::create_dir_all(dir.path().join("builder.d")).unwrap();
}

/// Starts the program by way of a shell that puts the socket where systemd puts it.
fn activated(dir: &TestDir, socket: &TcpListener) -> tokio::process::Child {
    let inheritable = nix::unistd::dup(socket).unwrap();
    let script = format!("exec 3<&{}; LISTEN_PID=$$ exec \"$0\"", inheritable.as_raw_fd());
    dinp_common::daemon::command("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_dinp-builder")])
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "http")
        .env("DINP_CONFIG_DIR", dir.path())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn it_serves_what_waits_in_the_socket_and_exits_when_idle() {
    let dir = TestDir::new("activation");
    config(&dir, "idle_exit_secs = 1\n");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    for round in 0..2 {
        // The request is there before the program.
        let early = tokio::spawn(reqwest::get(format!("{url}/health")));
        let mut child = activated(&dir, &socket);
        assert_eq!(early.await.unwrap().unwrap().status(), 200, "round {round}");
        // Neither database nor Engine: it says so, and neither crashes nor stays for ever.
        let ready = reqwest::get(format!("{url}/ready")).await.unwrap();
        assert_eq!(ready.status(), 503);
        let missing = ready.text().await.unwrap();
        assert!(missing.contains("database") && missing.contains("engine"), "{missing}");
        let begin = Instant::now();
        let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.unwrap().unwrap();
        assert!(status.success() && begin.elapsed() < Duration::from_secs(20), "{status}");
    }
}

#[tokio::test]
async fn an_open_request_holds_off_the_idle_exit() {
    let dir = TestDir::new("activation");
    config(&dir, "idle_exit_secs = 1\n");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/builds", socket.local_addr().unwrap());
    let mut child = activated(&dir, &socket);
    // A body that does not end while the sender lives.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let upload = tokio::spawn(reqwest::Client::new().post(url).body(body).send());
    sender.send(Ok("x".into())).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(3), child.wait()).await.is_err(), "it exited under a request");
    drop(sender);
    assert_eq!(upload.await.unwrap().unwrap().status(), 401);
    let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn bad_configuration_is_named() {
    let dir = TestDir::new("activation");
    config(&dir, "idle_exit_sec = 1\n");
    let check = |dir: &TestDir| {
        let program = dinp_common::daemon::command(env!("CARGO_BIN_EXE_dinp-builder"));
        let mut program = program;
        program.arg("check-config").env("DINP_CONFIG_DIR", dir.path());
        program
    };
    let output = check(&dir).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("builder.toml") && text.contains("idle_exit_secs"), "{text}");
    config(&dir, "[build]\nslice = \"../x\"\n");
    assert_eq!(check(&dir).output().await.unwrap().status.code(), Some(78));
    config(&dir, "");
    assert!(check(&dir).status().await.unwrap().success());
}
