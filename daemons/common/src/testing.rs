//! Real servers for tests: each on a free port with a private data directory, ended when dropped.
//!
//! The programs are Debian's: `mariadbd`, `redis-server`. A test that cannot start one fails and says what to install.

mod figure;

pub use figure::Figure;

use crate::api::agent::{InstanceReport, InstanceState};
use crate::credentials::Secret;
use crate::model::{AppName, InstanceId};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use std::fs::File;
use std::net::TcpListener;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A free port that no other test gets while this process lives.
///
/// It lies below the ports that the kernel gives to whoever asks for any: one of those could go to another process
/// between its choice and its use, and a test would talk to another test's server.
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let claims = std::env::temp_dir().join(format!("dinp-test-ports-{}", current_user()));
    std::fs::create_dir_all(&claims).expect("create a directory for claims on ports");
    // Each process begins elsewhere, so that few meet.
    let first = std::process::id().wrapping_mul(97);
    for step in 0..u32::from(PORTS.end - PORTS.start) {
        let port = PORTS.start + (first.wrapping_add(step) % u32::from(PORTS.end - PORTS.start)) as u16;
        let claim = File::create(claims.join(port.to_string())).expect("open a claim on a port");
        if claim.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            HELD.lock().expect("no holder of this lock panics").push(claim);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Of [`free_port`].
const PORTS: Range<u16> = 10_000..20_000;

/// An instance that has proved itself, as its agent reports it.
pub fn proved_report(instance: InstanceId, app: AppName, release: u64) -> InstanceReport {
    InstanceReport {
        instance,
        app,
        release,
        epoch: 1,
        state: InstanceState::Ready,
        port: Some(20_000),
        memory_mb: 128,
        cpu_millis: 100,
        since: 0,
        restarts: 0,
        exit_code: None,
        reason: String::new(),
        claimed: true,
        ticket: String::new(),
        proved: true,
        failures: 0,
        node_fault: false,
        failed_start: false,
        last_failure: String::new(),
        out_of_memory: false,
        oom_kills: 0,
        over_disk_mb: None,
        limits: Default::default(),
        output: Vec::new(),
    }
}

/// A directory that goes when dropped.
#[derive(Debug)]
pub struct TestDir(PathBuf);

impl TestDir {
    /// A fresh directory below the system's temporary one.
    pub fn new(purpose: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dinp-test-{purpose}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("create a directory for a test");
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary files.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn spawn(command: &mut Command, hint: &str) -> Process {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Process(child.unwrap_or_else(|error| panic!("start {:?}: {error}; {hint}", command.get_program())))
}

/// A running MariaDB with an account `root` without password on the loopback address.
pub struct Mysql {
    port: u16,
    _process: Process,
    directory: TestDir,
}

impl Mysql {
    /// Starts a server on fresh data and waits until it answers.
    pub async fn start() -> Self {
        let directory = TestDir::new("mysql");
        let data = directory.path().join("data");
        let hint = "install the package mariadb-server";
        let installed = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", data.display()))
            // Servers that start at the same time disturb each other in a common directory.
            .arg(format!("--tmpdir={}", directory.path().display()))
            .arg(format!("--user={}", current_user()))
            .output()
            .unwrap_or_else(|error| panic!("start mariadb-install-db: {error}; {hint}"));
        assert!(installed.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&installed.stderr));
        let port = free_port();
        let process = Self::spawn_server(&directory, port);
        let server = Self { port, _process: process, directory };
        server.wait().await;
        server
    }

    fn spawn_server(directory: &TestDir, port: u16) -> Process {
        let path = |name: &str| directory.path().join(name).display().to_string();
        spawn(
            Command::new("mariadbd")
                .arg("--no-defaults")
                .arg(format!("--user={}", current_user()))
                .arg(format!("--datadir={}", path("data")))
                .arg(format!("--tmpdir={}", directory.path().display()))
                .arg(format!("--socket={}", path("mysqld.sock")))
                .arg(format!("--pid-file={}", path("mysqld.pid")))
                .arg(format!("--log-error={}", path("error.log")))
                .arg(format!("--port={port}"))
                .args(["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M", "--skip-name-resolve"]),
            "install the package mariadb-server",
        )
    }

    /// Ends the server and starts it again on the same data and port.
    pub async fn restart(&mut self) {
        self.stop();
        self.start_again().await;
    }

    /// Ends the server with SIGKILL.
    pub fn stop(&mut self) {
        self._process.0.kill().ok();
        self._process.0.wait().ok();
    }

    /// Starts a stopped server on the same data and port.
    pub async fn start_again(&mut self) {
        self._process = Self::spawn_server(&self.directory, self.port);
        self.wait().await;
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A pool as `root` on one database.
    pub fn pool(&self, database: &str) -> Pool {
        crate::store::pool("127.0.0.1", self.port, database, "root", &Secret::new(""))
    }

    /// A fresh database, and a pool as `root` on it.
    pub async fn empty_database(&self) -> Pool {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("dinp{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let pool = self.pool("mysql");
        let mut conn = pool.get_conn().await.expect("connect to the test's MariaDB");
        conn.query_drop(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"))
            .await
            .expect("create a database");
        self.pool(&name)
    }

    /// A fresh database with the schema and a cluster id, and a pool as `root` on it.
    pub async fn database(&self) -> Pool {
        let pool = self.empty_database().await;
        crate::store::migrate(&pool).await.expect("migrate a fresh database");
        let mut conn = pool.get_conn().await.expect("connect to the test's MariaDB");
        crate::store::cluster::insert(&mut conn, &"c1".repeat(16)).await.expect("write a cluster id");
        pool
    }

    /// A pool on the same database under a daemon's own account with its real grants, such as `dinp_server`.
    pub async fn account(&self, pool_as_root: &Pool, account: &str) -> Pool {
        let mut conn = pool_as_root.get_conn().await.expect("connect to the test's MariaDB");
        let database: String =
            conn.query_first("SELECT DATABASE()").await.expect("ask for the database").expect("a row");
        let (_, grants) =
            crate::store::grants::ACCOUNTS.iter().find(|(name, _)| *name == account).expect("a known account");
        conn.query_drop(format!("CREATE USER IF NOT EXISTS '{account}'@'%' IDENTIFIED BY 'test'"))
            .await
            .expect("create an account");
        for statement in crate::store::grants::statements(&database, account, "%", grants) {
            conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        crate::store::pool("127.0.0.1", self.port, &database, account, &Secret::new("test"))
    }

    async fn wait(&self) {
        let begin = Instant::now();
        let pool = self.pool("mysql");
        while let Err(error) = pool.get_conn().await {
            let log = std::fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default();
            assert!(begin.elapsed() < Duration::from_secs(60), "MariaDB does not answer: {error}\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn current_user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    user.ok().flatten().map_or_else(|| "root".to_owned(), |user| user.name)
}

/// A running Redis whose account `test` with password `test` may do all.
pub struct Redis {
    port: u16,
    process: Process,
    directory: TestDir,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        let directory = TestDir::new("redis");
        let port = free_port();
        let redis = Self { port, process: Self::spawn_server(&directory, port), directory };
        redis.wait().await;
        redis
    }

    fn spawn_server(directory: &TestDir, port: u16) -> Process {
        spawn(
            Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
                .arg(directory.path())
                .args(["--user", "test", "on", ">test", "~*", "&*", "+@all"]),
            "install the package redis-server",
        )
    }

    /// URL without an account.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server; its content is lost.
    pub fn stop(&mut self) {
        self.process.0.kill().ok();
        self.process.0.wait().ok();
    }

    /// Starts a stopped server on the same port, empty.
    pub async fn start_again(&mut self) {
        self.process = Self::spawn_server(&self.directory, self.port);
        self.wait().await;
    }

    /// A connection as the account `test`.
    pub async fn connection(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(format!("redis://test:test@127.0.0.1:{}", self.port))?
            .get_multiplexed_async_connection()
            .await
    }

    async fn wait(&self) {
        let begin = Instant::now();
        while let Err(error) = self.connection().await {
            assert!(begin.elapsed() < Duration::from_secs(30), "Redis does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn nobody_gets_a_port_that_another_test_has_or_the_kernel_could_give() {
        let asking: Vec<_> = (0..8).map(|_| std::thread::spawn(|| [(); 40].map(|()| free_port()))).collect();
        let got: Vec<u16> = asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(got.iter().collect::<HashSet<_>>().len(), got.len());
        assert!(got.iter().all(|port| PORTS.contains(port)) && PORTS.end <= 32_768, "the kernel's own begin there");
    }
}
