//! A registry that asks who one is, an engine that can be made to hang, a packet filter's service, a full disk.

use crate::world::{docker, run};
use dinp_common::api::agent::RegistryAccess;
use dinp_common::testing::{TestDir, free_port};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Its base64 differs between the two alphabets.
const PASSWORD: &str = "ge?heim~>?~~??";
const HASH: &str = "$2b$04$upCj15f8vTeCBUmMyMXIr.CcZ2VUJ.ThcqvstslMqpYZqyZx.qa2O";

/// Debian's docker-registry with basic auth on a free port.
pub struct Registry {
    process: Child,
    port: u16,
    dir: TestDir,
    pushed: Option<String>,
}

impl Registry {
    /// Starts it and waits until it answers.
    pub async fn start() -> Self {
        let (dir, port) = (TestDir::new("agent-registry"), free_port());
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("users"), format!("pull:{HASH}\n")).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            path("data"),
            path("users"),
        );
        std::fs::write(path("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("start docker-registry: {error}; install the package docker-registry"));
        let registry = Self { process, port, dir, pushed: None };
        let begin = Instant::now();
        while reqwest::get(format!("http://127.0.0.1:{port}/v2/")).await.is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "docker-registry does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        registry
    }

    /// Pushes a local image and forgets it locally; its name there, by digest.
    pub fn push(&mut self, image: &str) -> String {
        let config = self.dir.path().join("docker").display().to_string();
        let name = format!("127.0.0.1:{}/team/web", self.port);
        let login = ["--config", &config, "login", "-u", "pull", "-p", PASSWORD, &format!("127.0.0.1:{}", self.port)];
        assert!(run("docker", &login).status.success());
        docker(&["tag", image, &name]);
        docker(&["--config", &config, "push", "-q", &name]);
        let digests = docker(&["image", "inspect", "-f", "{{join .RepoDigests \"\\n\"}}", &name]);
        let digest = digests.lines().find(|digest| digest.starts_with(&name)).unwrap().to_owned();
        docker(&["rmi", &name]);
        run("docker", &["rmi", &digest]);
        self.pushed = Some(digest.clone());
        digest
    }

    /// Its account.
    pub fn access(&self) -> RegistryAccess {
        RegistryAccess {
            address: format!("127.0.0.1:{}", self.port),
            username: "pull".into(),
            password: PASSWORD.into(),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if let Some(pulled) = &self.pushed {
            run("docker", &["rmi", pulled]);
        }
    }
}

/// Answers who asks whether the packet filter is in force.
pub struct PacketFilter {
    fault: watch::Sender<Option<String>>,
}

impl PacketFilter {
    /// One that is in force.
    pub fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let (fault, told) = watch::channel(None);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let verdict = serde_json::json!({"fault": *told.borrow()}).to_string();
                client.write_all(verdict.as_bytes()).await.ok();
            }
        });
        Self { fault }
    }

    /// It is not in force for that reason, or it is.
    pub fn fails_with(&self, fault: Option<&str>) {
        self.fault.send_replace(fault.map(str::to_owned));
    }
}

/// A device that is always full, in the place of both files of a value; until it is dropped.
pub struct Full(PathBuf);

impl Full {
    /// Of the value with that name.
    pub fn begin(path: &Path) -> Self {
        for slot in ["0", "1"] {
            let file = path.with_extension(slot);
            std::fs::rename(&file, file.with_extension(format!("kept{slot}"))).unwrap();
            std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        }
        Self(path.to_owned())
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        for slot in ["0", "1"] {
            let file = self.0.with_extension(slot);
            std::fs::rename(file.with_extension(format!("kept{slot}")), &file).unwrap();
        }
    }
}

/// A socket that passes everything on to the engine, until it hangs.
pub struct Proxy {
    hangs: watch::Sender<bool>,
    dir: TestDir,
}

impl Proxy {
    /// Starts it.
    pub async fn start() -> Self {
        let dir = TestDir::new("agent-proxy");
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let (hangs, hang) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, hang.clone()));
            }
        });
        Self { hangs, dir }
    }

    /// Its path.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Lets it hang, or go on.
    pub fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }
}

async fn pass(client: UnixStream, hang: watch::Receiver<bool>) {
    let Ok(engine) = UnixStream::connect("/var/run/docker.sock").await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let mut other = hang.clone();
    tokio::spawn(async move {
        copy(&mut from_client, &mut to_engine, &mut other).await;
        to_engine.shutdown().await.ok();
    });
    let mut hang = hang;
    copy(&mut from_engine, &mut to_client, &mut hang).await;
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    hang: &mut watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        if hang.wait_for(|hangs| !hangs).await.is_err() || to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}
