//! A builder with everything around it that is real: Docker Engine, registry with accounts, MariaDB.

#![allow(dead_code, reason = "each test file uses its part")]

use dinp_builder::config::{BuildConfig, BuilderConfig, FetchConfig};
use dinp_common::api::builder::{BuildStatus, BuildView};
use dinp_common::auth::{Credential, CredentialKind};
use dinp_common::config::Loaded;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::store;
use dinp_common::testing::{Mysql, TestDir, free_port};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const PASSWORD: &str = "geheim";

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Runs a program to its end and returns what it printed; fails with what it said.
pub fn sh(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("start {program:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program:?} {args:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
    text.trim().to_owned()
}

/// A docker-registry of the distribution with one account: a listener that takes images, and one on the same storage
/// that only gives them, as `dinp setup control` makes them.
pub struct RegistryServer {
    write_port: u16,
    read_port: u16,
    directory: TestDir,
    processes: Vec<Child>,
}

impl RegistryServer {
    pub async fn start() -> Self {
        let directory = TestDir::new("registry");
        let hash = sh("htpasswd", &["-Bbn", "builder", PASSWORD]);
        std::fs::write(directory.path().join("htpasswd"), hash + "\n").unwrap();
        let (write_port, read_port) = (free_port(), free_port());
        let mut registry = Self { write_port, read_port, directory, processes: Vec::new() };
        registry.write_config("write.yml", write_port, ", delete: {enabled: true}");
        registry.write_config("read.yml", read_port, ", maintenance: {readonly: {enabled: true}}");
        registry.resume().await;
        registry
    }

    fn write_config(&self, name: &str, port: u16, storage: &str) {
        let path = |name: &str| self.directory.path().join(name);
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}{storage}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\nauth: {{htpasswd: {{realm: dinp, path: {}}}}}\n",
            path("data").display(),
            path("htpasswd").display()
        );
        std::fs::write(path(name), config).unwrap();
    }

    pub async fn resume(&mut self) {
        for (name, address) in [("write.yml", self.push_address()), ("read.yml", self.address())] {
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(self.directory.path().join(name))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start docker-registry: install the package docker-registry");
            self.processes.push(child);
            eventually("the registry answers", async || tokio::net::TcpStream::connect(&address).await.ok()).await;
        }
    }

    /// Stores bytes in a repository, as anybody may who has the account; returns their digest.
    pub async fn put_blob(&self, repository: &str, bytes: Vec<u8>) -> String {
        let digest = digest(&bytes);
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.push_address());
        let client = reqwest::Client::new();
        let begun = client.post(url).basic_auth("builder", Some(PASSWORD)).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let put = client.put(location).query(&[("digest", &digest)]).basic_auth("builder", Some(PASSWORD)).body(bytes);
        assert_eq!(put.send().await.unwrap().status(), 201);
        digest
    }

    /// What is stored under a path of a repository: `manifests/v1`, `blobs/sha256:...`.
    pub async fn get(&self, repository: &str, path: &str) -> Vec<u8> {
        let url = format!("http://{}/v2/{repository}/{path}", self.address());
        let accept = "application/vnd.oci.image.manifest.v1+json";
        let request = reqwest::Client::new().get(url).header("accept", accept).basic_auth("builder", Some(PASSWORD));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{repository}/{path}");
        answer.bytes().await.unwrap().into()
    }

    /// Makes an image of Docker's kind of these layers, as tars.
    pub async fn put_image(&self, repository: &str, tag: &str, layers: &[Vec<u8>], config: serde_json::Value) {
        let mut stored = Vec::new();
        for layer in layers {
            let packed = gzip(layer);
            let size = packed.len();
            let digest = self.put_blob(repository, packed).await;
            let media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip";
            stored.push(serde_json::json!({"mediaType": media_type, "digest": digest, "size": size}));
        }
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "docker_version": "20.10.24",
        });
        let config = config.to_string().into_bytes();
        let size = config.len();
        let config = self.put_blob(repository, config).await;
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let media_type = "application/vnd.docker.container.image.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": kind, "layers": stored,
            "config": {"mediaType": media_type, "digest": config, "size": size},
        });
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.push_address());
        let request = reqwest::Client::new().put(url).header("content-type", kind).body(manifest.to_string());
        assert_eq!(request.basic_auth("builder", Some(PASSWORD)).send().await.unwrap().status(), 201);
    }

    /// Files of the registry's storage whose path holds these words.
    /// Gives a manifest a tag.
    pub async fn put_manifest(&self, repository: &str, tag: &str, manifest: Vec<u8>) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.push_address());
        let kind =
            serde_json::from_slice::<serde_json::Value>(&manifest).unwrap()["mediaType"].as_str().unwrap().to_owned();
        let request =
            reqwest::Client::new().put(url).basic_auth("builder", Some(PASSWORD)).header("content-type", kind);
        assert!(request.body(manifest).send().await.unwrap().status().is_success());
    }

    pub fn stored(&self, words: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![self.directory.path().join("data")];
        while let Some(path) = left.pop() {
            match std::fs::read_dir(&path) {
                Ok(entries) => left.extend(entries.flatten().map(|entry| entry.path())),
                Err(_) if path.to_string_lossy().contains(words) => found.push(path),
                Err(_) => {}
            }
        }
        found
    }

    pub fn stop(&mut self) {
        for mut child in self.processes.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Where images are pulled.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.read_port)
    }

    /// Where images are pushed.
    pub fn push_address(&self) -> String {
        format!("127.0.0.1:{}", self.write_port)
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Everything, and a client in the role of dash.
pub struct World {
    pub mysql: Mysql,
    pub registry: RegistryServer,
    pub pool: Pool,
    pub dir: TestDir,
    pub dash: Credential,
    pub client: reqwest::Client,
    /// Digests of base images by `repository:tag`, for the next builder that starts.
    pub pins: BTreeMap<String, String>,
    url: String,
    lifecycle: Lifecycle,
    builder: Option<tokio::task::JoinHandle<()>>,
    program: Option<tokio::process::Child>,
    database: String,
    docker_socket: PathBuf,
    /// Whether builders that start make images themselves where they can.
    pub is_direct: bool,
    /// Whether packages may be built by Dockerfiles of their own.
    pub own_dockerfiles: bool,
    /// Where packages may be fetched from.
    pub fetch: FetchConfig,
    /// Suite of the host that the builder runs on.
    pub suite: String,
    /// Largest image that the Engine may make, in MiB.
    pub image_max_mb: u32,
    /// After how much silence builds of other builders are taken over.
    pub give_up_secs: u32,
}

impl World {
    /// Starts all; base images are those that are named, made if they are missing.
    pub async fn start(bases: &[&str]) -> Self {
        sh("docker", &["version"]);
        let mut world = Self::prepare(BuilderConfig::default().docker_socket).await;
        world.push_bases(bases);
        world.start_builder().await;
        world
    }

    /// The same without an Engine, and with no base image.
    pub async fn without_engine() -> Self {
        let mut world = Self::prepare("/nonexistent/docker.sock".into()).await;
        world.start_builder().await;
        world
    }

    /// The same, with a runtime `x` that needs no Engine, and one that takes the same packages.
    pub async fn with_layer() -> Self {
        let world = Self::without_engine().await;
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(2);
        tar.append_data(&mut header, "bin/sh", &b"#!"[..]).unwrap();
        let layer = tar.into_inner().unwrap();
        world.registry.put_image("dinp/base-x", "test", &[layer], serde_json::json!({"Cmd": ["sh"]})).await;
        for name in ["x", "y"] {
            let base = "{registry}/dinp/base-x:{base_tag}";
            world.runtime_on(base, name, "COPY app/ {{app_dir}}/\nCMD [\"/app/run\"]");
        }
        world
    }

    async fn prepare(docker_socket: PathBuf) -> Self {
        let mysql = Mysql::start().await;
        let pool = mysql.database().await;
        mysql.account(&pool, "dinp_builder").await;
        let registry = RegistryServer::start().await;
        let dash = Credential::generate(CredentialKind::Service, "dash");
        let mut conn = pool.get_conn().await.unwrap();
        let hash = dash.secret_hash();
        conn.exec_drop(
            "INSERT INTO service_credential (name, role, secret_hash) VALUES ('dash', 'dash', ?)",
            (&hash[..],),
        )
        .await
        .unwrap();
        let database: String = conn.query_first("SELECT DATABASE()").await.unwrap().unwrap();
        drop(conn);
        let dir = TestDir::new("builder");
        let runtimes = dir.path().join("builder.d");
        std::fs::create_dir(&runtimes).unwrap();
        for file in ["binary.toml", "dockerfile.toml", "nodejs.toml", "python.toml", "package.Dockerfile"] {
            std::fs::copy(root().join("etc/builder.d").join(file), runtimes.join(file)).unwrap();
        }
        std::fs::write(dir.path().join("mysql"), "test").unwrap();
        std::fs::write(dir.path().join("push"), format!("builder:{PASSWORD}")).unwrap();
        let client = reqwest::Client::new();
        Self {
            mysql,
            registry,
            pool,
            dir,
            dash,
            client,
            pins: BTreeMap::new(),
            database,
            url: String::new(),
            lifecycle: Lifecycle::for_tests(),
            builder: None,
            program: None,
            docker_socket,
            is_direct: true,
            own_dockerfiles: false,
            fetch: FetchConfig::default(),
            suite: "test".into(),
            image_max_mb: 8192,
            give_up_secs: 60,
        }
    }

    fn push_bases(&self, bases: &[&str]) {
        for address in [self.registry.address(), self.registry.push_address()] {
            self.docker(&["login", "-u", "builder", "-p", PASSWORD, &address]);
        }
        if bases.is_empty() {
            return;
        }
        let made = std::env::var("DINP_BASE_IMAGES").unwrap_or_else(|_| "/tmp/dinp-base-images".into());
        let mut args = vec![made.as_str()];
        args.extend(bases);
        sh(root().join("packaging/base-images/build"), &args);
        for base in bases {
            let changes = std::fs::read_to_string(format!("{made}/{base}.import")).unwrap();
            self.push_base(base, &format!("{made}/{base}.tar"), changes.lines());
        }
    }

    /// Puts a root file system into the registry as a base image; returns its digest.
    pub fn push_base<'a>(&self, base: &str, tar: &str, changes: impl Iterator<Item = &'a str>) -> String {
        let image = format!("{}/dinp/{base}:test", self.registry.push_address());
        let mut args = vec!["import"];
        changes.for_each(|change| args.extend(["--change", change]));
        args.extend([tar, &image]);
        sh("docker", &args);
        self.docker(&["push", "-q", &image]);
        let pushed = sh("docker", &["inspect", "-f", "{{index .RepoDigests 0}}", &image]);
        // The Engine has to fetch it with the builder's own account.
        sh("docker", &["rmi", "-f", &image]);
        pushed.split_once('@').unwrap().1.to_owned()
    }

    /// The command `docker` with accounts at the registry.
    pub fn docker(&self, args: &[&str]) -> String {
        let config = self.dir.path().join("docker").display().to_string();
        sh("docker", &[&["--config", &config], args].concat())
    }

    pub async fn start_builder(&mut self) {
        let port = free_port();
        let config = BuilderConfig {
            listen: vec![([127, 0, 0, 1], port).into()],
            name: Some("builder1".into()),
            state_dir: self.dir.path().join("state"),
            docker_socket: self.docker_socket.clone(),
            build: BuildConfig {
                direct: self.is_direct,
                own_dockerfiles: self.own_dockerfiles,
                image_max_mb: self.image_max_mb,
                ..BuildConfig::default()
            },
            runtimes_dir: Some(self.dir.path().join("builder.d")),
            base_tag: Some(self.suite.clone()),
            fetch: self.fetch.clone(),
            bases: self.pins.clone(),
            drain_secs: 1,
            give_up_secs: self.give_up_secs,
            ..BuilderConfig::default()
        };
        let mut loaded = Loaded::for_tests("builder", config);
        loaded.cluster.mysql.port = self.mysql.port();
        loaded.cluster.mysql.database = self.database.clone();
        loaded.cluster.mysql.password_file = Some(self.dir.path().join("mysql"));
        loaded.cluster.registry.address = self.registry.address();
        loaded.cluster.registry.push_address = Some(self.registry.push_address());
        loaded.cluster.registry.credential_file = Some(self.dir.path().join("push"));
        self.lifecycle = Lifecycle::for_tests();
        let lifecycle = self.lifecycle.clone();
        self.builder = Some(tokio::spawn(async move { dinp_builder::run(loaded, lifecycle).await.unwrap() }));
        self.url = format!("http://127.0.0.1:{port}");
        let url = format!("{}/health", self.url);
        eventually("the builder answers", async || self.client.get(&url).send().await.ok()).await;
    }

    /// What the program says with these arguments, as a member of a cluster with this server.
    pub async fn run_program(&self, server: &str, args: &[&str]) -> String {
        self.write_config(0, server);
        std::fs::create_dir_all(self.dir.path().join("credentials")).unwrap();
        std::fs::write(self.dir.path().join("credentials/service-builder"), self.dash.to_string()).unwrap();
        let mut program = dinp_common::daemon::command(env!("CARGO_BIN_EXE_dinp-builder"));
        let ended = program.env("DINP_CONFIG_DIR", self.dir.path()).args(args).output().await.unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    }

    /// Starts the builder as a process of its own, which can be killed.
    pub async fn start_program(&mut self) -> u32 {
        let port = free_port();
        self.write_config(port, "http://127.0.0.1:1");
        let mut program = dinp_common::daemon::command(env!("CARGO_BIN_EXE_dinp-builder"));
        let program = program.env("DINP_CONFIG_DIR", self.dir.path()).stderr(Stdio::null()).kill_on_drop(true);
        let child = program.spawn().unwrap();
        let pid = child.id().unwrap();
        self.program = Some(child);
        self.url = format!("http://127.0.0.1:{port}");
        let url = format!("{}/health", self.url);
        eventually("the builder answers", async || self.client.get(&url).send().await.ok()).await;
        pid
    }

    fn write_config(&self, port: u16, server: &str) {
        let path = |name: &str| self.dir.path().join(name);
        let cluster = format!(
            "servers = [\"{server}\"]\n[mysql]\nport = {}\ndatabase = \"{}\"\npassword_file = \"{}\"\n[registry]\naddress = \"{}\"\n\
             push_address = \"{}\"\ncredential_file = \"{}\"\n",
            self.mysql.port(),
            self.database,
            path("mysql").display(),
            self.registry.address(),
            self.registry.push_address(),
            path("push").display()
        );
        let own = format!(
            "listen = [\"127.0.0.1:{port}\"]\nname = \"builder1\"\nstate_dir = \"{}\"\ndocker_socket = \"{}\"\n\
             base_tag = \"test\"\n",
            path("state").display(),
            self.docker_socket.display()
        );
        std::fs::write(path("dinp.toml"), cluster).unwrap();
        std::fs::write(path("builder.toml"), own).unwrap();
    }

    /// Kills it.
    pub async fn stop_program(&mut self) {
        self.program.take().unwrap().kill().await.unwrap();
    }

    /// Stops the builder as SIGTERM does, and waits for its end.
    pub async fn stop_builder(&mut self) {
        self.lifecycle.shutdown().cancel();
        self.builder.take().unwrap().await.unwrap();
    }

    /// Ends the builder at once, as SIGKILL does.
    pub async fn kill_builder(&mut self) {
        let builder = self.builder.take().unwrap();
        builder.abort();
        assert!(builder.await.unwrap_err().is_cancelled());
        self.lifecycle.end_tasks().await;
    }

    /// Adds a runtime on `base-binary` with these instructions after FROM.
    pub fn runtime(&self, name: &str, instructions: &str) {
        self.runtime_on("{registry}/dinp/base-binary:{base_tag}", name, instructions);
    }

    /// Adds a runtime on another base.
    pub fn runtime_on(&self, base: &str, name: &str, instructions: &str) {
        let path = |end: &str| self.dir.path().join("builder.d").join(format!("{name}.{end}"));
        let toml = format!("description = \"test\"\nbase = \"{base}\"\npackages = [\"tar.gz\"]\n");
        std::fs::write(path("toml"), toml).unwrap();
        std::fs::write(path("Dockerfile"), format!("FROM {{{{base}}}}\n{instructions}\n")).unwrap();
    }

    /// Lets runtimes take these formats.
    pub fn formats(&self, runtimes: &[&str], formats: &str) {
        for runtime in runtimes {
            let path = self.dir.path().join("builder.d").join(format!("{runtime}.toml"));
            let text = std::fs::read_to_string(&path).unwrap().replace("\"tar.gz\"", formats);
            std::fs::write(path, text).unwrap();
        }
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.dash)
    }

    pub async fn upload(&self, query: &[(&str, &str)], package: Vec<u8>) -> (u16, serde_json::Value) {
        let request = self.request(reqwest::Method::POST, "/v1/builds").query(query).body(package);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Uploads what must be taken; returns the build's id.
    pub async fn begin(&self, app: &str, version: &str, runtime: &str, package: Vec<u8>) -> u64 {
        let query = [("app", app), ("version", version), ("runtime", runtime), ("user", "ann"), ("owner", "team1")];
        let (status, body) = self.upload(&query, package).await;
        assert_eq!(status, 202, "{body}");
        body["id"].as_u64().unwrap()
    }

    pub async fn build(&self, id: u64) -> BuildView {
        store::build::get(&mut self.pool.get_conn().await.unwrap(), id).await.unwrap().unwrap()
    }

    pub async fn log(&self, id: u64) -> String {
        let mut conn = self.pool.get_conn().await.unwrap();
        let pieces = store::build::log_from(&mut conn, id, 0).await.unwrap();
        pieces.into_iter().map(|(_, text)| text).collect()
    }

    pub async fn ended(&self, id: u64) -> BuildView {
        eventually("the build ends", async || Some(self.build(id).await).filter(|build| build.status.is_final())).await
    }

    pub async fn succeeded(&self, id: u64) -> String {
        let build = self.ended(id).await;
        assert_eq!(build.status, BuildStatus::Succeeded, "{}\n{}", build.reason, self.log(id).await);
        build.image.unwrap()
    }

    /// The tags of a repository in the registry.
    pub async fn tags(&self, repository: &str) -> Vec<String> {
        let url = format!("http://{}/v2/{repository}/tags/list", self.registry.address());
        let answer = self.client.get(url).basic_auth("builder", Some(PASSWORD)).send().await.unwrap();
        let body: serde_json::Value = answer.json().await.unwrap();
        body["tags"]
            .as_array()
            .map_or(Vec::new(), |tags| tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect())
    }

    /// Fetches an image with an account, as nodes do.
    pub fn pull(&self, image: &str) {
        self.docker(&["pull", "-q", image]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for address in [self.registry.address(), self.registry.push_address()] {
            let filter = format!("reference={address}/*/*");
            let listed = Command::new("docker").args(["images", "-q", "--filter", &filter]).output();
            let listed = String::from_utf8_lossy(&listed.map(|output| output.stdout).unwrap_or_default()).into_owned();
            for id in listed.split_whitespace() {
                Command::new("docker").args(["rmi", "-f", id]).output().ok();
            }
        }
    }
}

/// Asks again and again until there is an answer, for a minute at most.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "in vain for a minute: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", dinp_common::auth::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes)))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, bytes).unwrap();
    packed.finish().unwrap()
}

/// A package of these files, all executable.
pub fn tar_gz(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A sample application as its users pack it.
pub fn sample(name: &str, version: &str) -> Vec<u8> {
    let dir = TestDir::new("samples");
    let out = dir.path().display().to_string();
    sh(root().join("integration/samples/pack"), &[&out, version, name]);
    std::fs::read(dir.path().join(format!("{name}-{version}.tar.gz"))).unwrap()
}
