//! The builder against a real Docker Engine, a real registry with accounts and a real MariaDB.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod golden;
mod own;
mod slices;
#[path = "../support/mod.rs"]
mod support;

use dinp_common::api::builder::BuildStatus;
use dinp_common::auth::{Credential, CredentialKind};
use mysql_async::prelude::Queryable;
use std::time::Duration;
use support::{World, eventually, sample, sh, tar_gz};

/// A container that goes when dropped.
struct Container {
    id: String,
    url: String,
}

impl Container {
    async fn run(image: &str, client: &reqwest::Client) -> Self {
        let flags = [
            "run",
            "-d",
            "--init",
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--cap-drop",
            "ALL",
            "-p",
            "127.0.0.1::8080",
            image,
        ];
        let id = sh("docker", &flags);
        let address = sh("docker", &["port", &id, "8080/tcp"]);
        let url = format!("http://{}", address.lines().next().unwrap());
        let container = Self { id, url };
        eventually("the app answers", async || client.get(&container.url).send().await.ok()).await;
        container
    }

    async fn get(&self, path: &str, client: &reqwest::Client) -> String {
        client.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    fn output(&self) -> String {
        let output = std::process::Command::new("docker").args(["logs", &self.id]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Stops it as agents do, and returns its exit code and how long it took.
    fn stop(&self) -> (String, Duration) {
        let begin = std::time::Instant::now();
        sh("docker", &["stop", "-t", "20", &self.id]);
        (sh("docker", &["inspect", "-f", "{{.State.ExitCode}}", &self.id]), begin.elapsed())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        sh("docker", &["rm", "-f", &self.id]);
    }
}

/// What the Engine holds of an app.
fn left_of(app: &str) -> String {
    sh("docker", &["images", "-qa", "--filter", &format!("label=dinp.image.app={app}")])
}

/// Builds a sample, runs the image as an agent would, and stops it.
async fn becomes_an_image_that_serves(world: &World, name: &str, runtime: &str) {
    let id = world.begin(name, "1.0", runtime, sample(name, "1.0")).await;
    let image = world.succeeded(id).await;
    let build = world.build(id).await;
    println!("{name}: built and pushed within {} ms", build.finished_at.unwrap() - build.started_at);
    assert!(image.starts_with(&format!("{}/team1/{name}:1.0@sha256:", world.registry.address())), "{image}");
    let log = world.log(id).await;
    assert!(log.contains("COPY app/ /app/") && log.contains(&format!("done: {image}")), "{log}");
    assert_eq!(left_of(name), "", "nothing stays in the Engine");

    world.pull(&image);
    let container = Container::run(&image, &world.client).await;
    let greeting = container.get("/", &world.client).await;
    assert!(greeting.starts_with("Hello from ") && greeting.contains(" 1.0 on "), "{name}: {greeting}");
    assert_eq!(container.get("/env?name=PORT", &world.client).await, "8080\n");
    assert_eq!(sh("docker", &["exec", &container.id, "id", "-u"]), "1000");
    assert_eq!(sh("docker", &["exec", &container.id, "stat", "-c", "%u %a", "/app/VERSION"]), "0 644");
    let (code, took) = container.stop();
    assert!(code == "0" && took < Duration::from_secs(15), "{name} ended with {code} after {took:?}");
    drop(container);
    sh("docker", &["rmi", "-f", &image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sample_serves() {
    let world = World::start(&["base-python"]).await;
    becomes_an_image_that_serves(&world, "hello-python", "python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_samples_serve() {
    let world = World::start(&["base-binary"]).await;
    for name in ["web-binary", "tree-binary"] {
        becomes_an_image_that_serves(&world, name, "binary").await;
    }
    // One executable alone is a package too, and nobody has to think of a version.
    let executable = support::root().join("target/samples/release/dinp-sample-web");
    let query = [("app", "single"), ("runtime", "binary"), ("user", "ann"), ("owner", "team1")];
    let (status, body) = world.upload(&query, std::fs::read(executable).unwrap()).await;
    assert_eq!(status, 202, "{body}");
    let version = body["version"].as_str().unwrap();
    assert!(version.len() == 24 && version.starts_with("20"), "{version}");
    world.succeeded(body["id"].as_u64().unwrap()).await;
}

/// An app that answers with a variable of its environment and tells how it ends.
pub(crate) const SERVER: &str = r#"
import http.server, os, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["GREETING"].encode())

def stop(*_):
    print("stopped in order", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
http.server.HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_line_of_the_procfile_is_run_and_all_of_it_is_stopped() {
    let world = World::start(&["base-python"]).await;
    let lines = ["cd src && GREETING=hello python server.py", "GREETING=hello python src/server.py; echo next"];
    for (number, line) in lines.iter().enumerate() {
        let procfile = format!("release: python migrate.py\r\nweb: {line}\r\nworker: celery\r\n");
        let package = tar_gz(&[("Procfile", &procfile), ("src/server.py", SERVER)]);
        let id = world.begin("line", &format!("v{number}"), "python", package).await;
        let image = world.succeeded(id).await;
        let log = world.log(id).await;
        assert!(log.contains("note: of the Procfile only web is run; not run: release, worker\n"), "{log}");

        world.pull(&image);
        let container = Container::run(&image, &world.client).await;
        assert_eq!(container.get("/", &world.client).await, "hello", "{line}");
        let (code, took) = container.stop();
        let output = container.output();
        assert!(output.contains("stopped in order\n") && !output.contains("next"), "{line}: {output}");
        assert!(code == "0" && took < Duration::from_secs(5), "{line}: ended with {code} after {took:?}");
        assert!(!output.contains("tini"), "one init alone: {output}");
        drop(container);
        sh("docker", &["rmi", "-f", &image]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_is_of_people_and_the_scheme_is_theirs() {
    let world = World::start(&["base-python"]).await;
    let app = "def app(environ, start):\n    start('200 OK', [])\n    return [environ['wsgi.url_scheme'].encode()]\n";
    let id = world.begin("scheme", "v1", "python", tar_gz(&[("app.py", app)])).await;
    let image = world.succeeded(id).await;
    world.pull(&image);
    let container = Container::run(&image, &world.client).await;
    for (path, agent) in [("/by-agent", "dinp-agent/0.1.0"), ("/by-hm", "dinp-hm/0.1.0"), ("/by-person", "curl/8")] {
        let request = world.client.get(format!("{}{path}", container.url)).header("user-agent", agent);
        let answer = request.header("x-forwarded-proto", "https").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "https");
    }
    let output = eventually("the access log", async || {
        Some(container.output()).filter(|output| output.contains("GET /by-person"))
    })
    .await;
    assert!(!output.contains("/by-agent") && !output.contains("/by-hm"), "{output}");
    drop(container);
    sh("docker", &["rmi", "-f", &image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_failed_and_what_is_refused_leaves_nothing() {
    let mut world = World::start(&["base-binary"]).await;
    let package = || tar_gz(&[("app", "#!/bin/sh\n")]);

    // The exit reason is that of the build; that a push would have worked changes nothing.
    world.runtime("failing", "RUN echo before && exit 3");
    let id = world.begin("failing-app", "v1", "failing", package()).await;
    let build = world.ended(id).await;
    assert_eq!(build.status, BuildStatus::Failed);
    assert!(build.reason.contains("exit 3") && build.reason.contains("non-zero code: 3"), "{}", build.reason);
    assert!(build.image.is_none() && world.tags("team1/failing-app").await.is_empty());
    assert_eq!(left_of("failing-app"), "", "intermediate images are removed");
    let log = world.log(id).await;
    assert!(log.contains("before") && log.contains("failed: the build failed"), "{log}");

    // A version that failed can be built; one that was built cannot again.
    world.runtime("plain", "COPY app/ {{app_dir}}/");
    let id = world.begin("failing-app", "v1", "plain", package()).await;
    world.succeeded(id).await;
    let id = world.begin("web", "v1", "plain", package()).await;
    world.succeeded(id).await;
    let query = [("app", "web"), ("version", "v1"), ("runtime", "plain"), ("owner", "team1")];
    let (status, body) = world.upload(&query, package()).await;
    assert_eq!((status, body["type"].as_str()), (409, Some("urn:dinp:version-exists")), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("\"v1\" exists already"), "{body}");

    // No network, and none of the builder's rights.
    world.runtime("network", "RUN test \"$(ls /sys/class/net)\" = lo && ! wget -T 2 -q -O- http://192.0.2.1/");
    let id = world.begin("web", "v2", "network", package()).await;
    world.succeeded(id).await;

    // What nobody may say in a name.
    for (name, value) in [
        ("app", "web;reboot"),
        ("app", "$(id)"),
        ("version", "v1 --pull"),
        ("version", "`id`"),
        ("version", "v\nRUN id"),
        ("owner", "../dinp"),
        ("owner", "Team 1"),
        ("owner", "dinp"),
        ("runtime", "../../x"),
        ("runtime", "cobol"),
    ] {
        let mut query = vec![("app", "web"), ("version", "v9"), ("runtime", "plain"), ("owner", "team1")];
        query.iter_mut().find(|(key, _)| *key == name).unwrap().1 = value;
        let (status, body) = world.upload(&query, package()).await;
        assert!(status == 422 || status == 400, "{name}={value}: {status} {body}");
        assert!(!body["detail"].as_str().unwrap().is_empty(), "{body}");
    }
    let (_, body) = world.upload(&[("app", "web"), ("runtime", "cobol")], package()).await;
    let detail = "runtime \"cobol\" does not exist; there are: binary, failing, network, nodejs, plain or python";
    assert_eq!(body["detail"].as_str(), Some(detail));

    // Packages that are none.
    let query = [("app", "web"), ("version", "v9"), ("runtime", "plain"), ("owner", "team1")];
    let (status, body) = world.upload(&query, b"hello".to_vec()).await;
    assert_eq!(status, 422, "{body}");
    assert!(body["detail"].as_str().unwrap().starts_with("the package is not an archive"), "{body}");
    let wrong_level = tar_gz(&[("hello/app.py", "")]);
    let (status, body) = world.upload(&[("app", "web"), ("runtime", "python"), ("owner", "team1")], wrong_level).await;
    assert!(status == 422 && body["detail"].as_str().unwrap().contains("all of it lies in hello/"), "{body}");
    let spool = world.dir.path().join("state/spool");
    assert_eq!(std::fs::read_dir(spool).unwrap().count(), 0, "nothing stays in the spool");

    // Who is not dash.
    let hm = Credential::generate(CredentialKind::Service, "hm");
    let mut conn = world.pool.get_conn().await.unwrap();
    let hash = hm.secret_hash();
    conn.exec_drop("INSERT INTO service_credential (name, role, secret_hash) VALUES ('hm', 'hm', ?)", (&hash[..],))
        .await
        .unwrap();
    drop(conn);
    let dash = std::mem::replace(&mut world.dash, hm);
    assert_eq!(world.upload(&query, package()).await.0, 403);
    world.dash = Credential::generate(CredentialKind::Service, "dash");
    assert_eq!(world.upload(&query, package()).await.0, 401);
    world.dash = dash;

    // A base image that nobody has put into the registry: the record says who does, and how.
    world.runtime_on("{registry}/dinp/nothing:here", "baseless", "COPY app/ {{app_dir}}/");
    let id = world.begin("web", "v3", "baseless", package()).await;
    let build = world.ended(id).await;
    assert_eq!(build.status, BuildStatus::Failed);
    assert!(build.reason.contains("dinp/nothing:here is not in the registry"), "{}", build.reason);
    assert!(build.reason.contains("dinp setup base-images"), "{}", build.reason);

    // The registry away: the record says so. The database away: told before the upload.
    world.registry.stop();
    let id = world.begin("web", "v3", "plain", package()).await;
    let build = world.ended(id).await;
    assert_eq!(build.status, BuildStatus::Failed);
    assert!(build.reason.contains("refused"), "{}", build.reason);
    world.registry.resume().await;
    world.mysql.stop();
    let (status, body) = world.upload(&query, package()).await;
    assert_eq!((status, body["type"].as_str()), (503, Some("urn:dinp:database-unavailable")), "{body}");
    world.mysql.start_again().await;
    let id = eventually("the database is back", async || {
        let (status, body) = world.upload(&query, package()).await;
        (status == 202).then(|| body["id"].as_u64().unwrap())
    })
    .await;
    world.succeeded(id).await;
}

/// Creates the app `web`, or another one in the place of a deleted one; returns when that was.
async fn new_app(world: &World) -> String {
    let mut conn = world.pool.get_conn().await.unwrap();
    conn.query_drop(
        "INSERT INTO app (name, owner, instances, rev) VALUES ('web', 'ann', 1, 1) \
         ON DUPLICATE KEY UPDATE created_at = UTC_TIMESTAMP(3)",
    )
    .await
    .unwrap();
    let sql = "SELECT CAST(CAST(UNIX_TIMESTAMP(created_at) * 1000 AS SIGNED) AS CHAR) FROM app WHERE name = 'web'";
    conn.query_first(sql).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_a_deleted_app_is_free_and_its_image_stays_under_its_digest() {
    let world = World::start(&["base-binary"]).await;
    world.runtime("plain", "COPY app/ {{app_dir}}/");
    let upload = async |created_at: &str| {
        // The same package would give the same image.
        let package = tar_gz(&[("app", &format!("#!/bin/sh\n# {created_at}\n"))]);
        let query = [
            ("app", "web"),
            ("app_created_at", created_at),
            ("version", "v1"),
            ("runtime", "plain"),
            ("user", "ann"),
            ("owner", "team1"),
        ];
        world.upload(&query, package).await
    };
    let first = new_app(&world).await;
    let (status, body) = upload(&first).await;
    assert_eq!(status, 202, "{body}");
    let old = world.succeeded(body["id"].as_u64().unwrap()).await;
    assert_eq!(upload(&first).await.0, 409);

    let second = new_app(&world).await;
    let (status, body) = upload(&first).await;
    assert_eq!(status, 409, "the registry still has the version of that app: {body}");
    let (status, body) = upload(&second).await;
    assert_eq!(status, 202, "{body}");
    let new = world.succeeded(body["id"].as_u64().unwrap()).await;
    assert_ne!(old, new);
    assert_eq!(upload(&second).await.0, 409);
    let (tag, digest) = new.split_once('@').unwrap();
    world.pull(tag);
    let pulled = sh("docker", &["inspect", "-f", "{{join .RepoDigests \" \"}}", tag]);
    assert!(pulled.contains(digest), "the tag is the new image's: {pulled}");
    world.pull(&old);

    // What nobody has on record is not written over.
    let mut conn = world.pool.get_conn().await.unwrap();
    conn.query_drop("DELETE FROM build").await.unwrap();
    drop(conn);
    let third = new_app(&world).await;
    let (status, body) = upload(&third).await;
    assert_eq!((status, body["type"].as_str()), (409, Some("urn:dinp:version-exists")), "{body}");

    // The app that the package was for is gone; one of its name is not asked.
    let query = [("app", "web"), ("app_created_at", first.as_str()), ("runtime", "plain"), ("owner", "team1")];
    let (status, body) = world.upload(&query, tar_gz(&[("app", "#!/bin/sh\n")])).await;
    assert_eq!(status, 404, "{body}");
    assert!(body["detail"].as_str().unwrap().contains("app web was deleted"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_seen_while_it_grows_and_builds_can_be_stopped() {
    let mut world = World::start(&["base-binary"]).await;
    let package = || tar_gz(&[("app", "#!/bin/sh\n")]);
    world.runtime("slow", "RUN echo first && sleep 60 && echo second");

    let id = world.begin("stopped-app", "v1", "slow", package()).await;
    let is_seen = async || world.log(id).await.lines().any(|line| line == "first").then_some(());
    eventually("the first line shows", is_seen).await;
    let build = world.build(id).await;
    assert_eq!((build.status, build.stage.as_str()), (BuildStatus::Running, "building"));
    let (status, body) = world
        .upload(&[("app", "stopped-app"), ("version", "v1"), ("runtime", "slow"), ("owner", "team1")], package())
        .await;
    assert_eq!(status, 409, "{body}");

    let path = format!("/v1/builds/{id}");
    let cancel = async || world.request(reqwest::Method::DELETE, &path).send().await.unwrap().status().as_u16();
    assert_eq!(cancel().await, 204);
    assert_eq!(world.build(id).await.status, BuildStatus::Cancelled);
    assert!(world.log(id).await.ends_with("cancelled\n"));
    assert_eq!(left_of("stopped-app"), "", "a cancelled build leaves nothing");
    assert_eq!(cancel().await, 409);
    let none = world.request(reqwest::Method::DELETE, "/v1/builds/999").send().await.unwrap();
    assert_eq!(none.status(), 404);
    let running =
        async || sh("docker", &["ps", "-q", "--filter", "label=dinp.image.app=stopped-app"]).is_empty().then_some(());
    eventually("its container is gone", running).await;

    // A clean stop gives builds their time, and then leaves them to the next start.
    let id = world.begin("stopped-app", "v2", "slow", package()).await;
    eventually("it runs", async || world.log(id).await.contains("first\n").then_some(())).await;
    world.stop_builder().await;
    assert_eq!(world.build(id).await.status, BuildStatus::Running);
    assert_eq!(left_of("stopped-app"), "", "nor does one that was stopped");

    world.start_builder().await;
    let again = async || world.log(id).await.matches("first\n").count().ge(&2).then_some(());
    eventually("it runs again", again).await;
    assert_eq!(world.build(id).await.attempt, 2);
    let path = format!("/v1/builds/{id}");
    let cancelled = world.request(reqwest::Method::DELETE, &path).send().await.unwrap();
    assert_eq!(cancelled.status(), 204);
    assert_eq!(world.build(id).await.status, BuildStatus::Cancelled);
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_too_large_is_not_pushed() {
    let mut world = World::start(&["base-binary"]).await;
    world.stop_builder().await;
    world.image_max_mb = 100;
    world.start_builder().await;
    world.runtime("large", "USER 0\nRUN head -c 150000000 /dev/zero >/zeros");
    let id = world.begin("large-app", "v1", "large", tar_gz(&[("app", "#!/bin/sh\n")])).await;
    let build = world.ended(id).await;
    assert_eq!(build.status, BuildStatus::Failed);
    assert!(build.reason.contains("more than the 100 that it may have (build.image_max_mb)"), "{}", build.reason);
    assert!(world.tags("team1/large-app").await.is_empty());
    assert_eq!(left_of("large-app"), "", "it leaves nothing");
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_does_not_fill_the_queue_nor_all_of_them_the_spool() {
    let mut world = World::start(&["base-binary"]).await;
    world.runtime("slow", "RUN sleep 60");
    let package = || tar_gz(&[("app", "#!/bin/sh\n")]);
    let upload = async |user: &str, version: &str| {
        let query = [("app", "web"), ("version", version), ("runtime", "slow"), ("user", user), ("owner", "team1")];
        world.upload(&query, package()).await
    };
    let mut ids = Vec::new();
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        let (status, body) = upload("ann", version).await;
        assert_eq!(status, 202, "{body}");
        ids.push(body["id"].as_u64().unwrap());
    }
    let (status, body) = upload("ann", "v6").await;
    assert_eq!((status, body["type"].as_str()), (429, Some("urn:dinp:too-many-packages")), "{body}");
    assert!(body["detail"].as_str().unwrap().starts_with("you have 5 packages here that arrive, wait or"), "{body}");
    let (status, body) = upload("bob", "v6").await;
    assert_eq!(status, 202, "another person is not held up: {body}");
    ids.push(body["id"].as_u64().unwrap());

    // Uploads of which nobody knows the size: each holds the place of the largest package.
    let open = (0..7).map(|number| {
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1);
        let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let user = format!("user{number}");
        let query = [("app", "web"), ("runtime", "slow"), ("user", &user), ("owner", "team1")];
        let request = world.request(reqwest::Method::POST, "/v1/builds").query(&query).body(body);
        (sender, tokio::spawn(request.send()))
    });
    let open: Vec<_> = open.collect();
    let refused = eventually("the spool is full", async || {
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1);
        drop(sender);
        let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let query = [("app", "web"), ("runtime", "slow"), ("user", "eve"), ("owner", "team1")];
        let answer = world.request(reqwest::Method::POST, "/v1/builds").query(&query).body(body).send().await.unwrap();
        (answer.status() == 507).then_some(answer)
    })
    .await;
    let body: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(body["type"].as_str(), Some("urn:dinp:spool-full"), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("fill the 8192 MiB that there are for them"), "{body}");

    // Whoever gives up makes room, and so does a build that ends.
    for (sender, answer) in open {
        drop(sender);
        assert_eq!(answer.await.unwrap().unwrap().status(), 422, "an empty package");
    }
    for id in ids {
        let path = format!("/v1/builds/{id}");
        assert_eq!(world.request(reqwest::Method::DELETE, &path).send().await.unwrap().status(), 204);
    }
    let (status, body) = upload("ann", "v7").await;
    assert_eq!(status, 202, "{body}");
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_moved_changes_no_later_build() {
    let mut world = World::start(&[]).await;
    let base = |world: &World, content: &str| {
        let dir = dinp_common::testing::TestDir::new("base");
        let tar = dir.path().join("root.tar");
        let mut archive = tar::Builder::new(std::fs::File::create(&tar).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, "which", content.as_bytes()).unwrap();
        archive.finish().unwrap();
        world.push_base("base-x", &tar.display().to_string(), [].into_iter())
    };
    world.runtime_on("{registry}/dinp/base-x:{base_tag}", "x", "COPY app/ {{app_dir}}/");
    let build = async |world: &World, version: &str| {
        let id = world.begin("web", version, "x", tar_gz(&[("app", "")])).await;
        let image = world.succeeded(id).await;
        world.pull(&image);
        let container = sh("docker", &["create", &image, "none"]);
        let which = sh("sh", &["-c", &format!("docker cp {container}:/which - | tar -xO")]);
        sh("docker", &["rm", &container]);
        let mut conn = world.pool.get_conn().await.unwrap();
        let base: String = conn.exec_first("SELECT base FROM build WHERE id = ?", (id,)).await.unwrap().unwrap();
        (base, which)
    };
    let good = base(&world, "good");
    let (named, which) = build(&world, "v1").await;
    assert_eq!(which, "good");
    assert_eq!(named, format!("{}/dinp/base-x:test@{good}", world.registry.address()), "the record names the digest");

    world.pins.insert("dinp/base-x:test".into(), good.clone());
    world.stop_builder().await;
    world.start_builder().await;
    let evil = base(&world, "evil");
    let (named, which) = build(&world, "v2").await;
    assert_ne!(good, evil);
    assert!(which == "good" && named.ends_with(&good), "{which}: {named}");
    world.stop_builder().await;
}
