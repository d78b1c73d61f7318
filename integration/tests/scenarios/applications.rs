//! Real applications, made of what PyPI, npm and Debian have, each deployed by one line that names no runtime.

use dinp_integration::testbed::{Cluster, Error, Result, Scenario, eventually, secs};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An application of `integration/applications`.
struct Application {
    file: &'static str,
    runtime: &'static str,
    /// Paths, and what is in the answers.
    answers: &'static [(&'static str, u16, &'static [&'static str])],
}

const APPLICATIONS: [Application; 10] = [
    Application {
        file: "django.tar.gz",
        runtime: "python",
        answers: &[("/", 200, &["Django 5.", "the answer is 42", "asked by http."])],
    },
    Application {
        file: "flask.tar.gz",
        runtime: "python",
        answers: &[("/", 200, &["\"lxml\":\"found\"", "\"numpy\":10.0", "\"pillow\":true", "\"psycopg\":true"])],
    },
    Application { file: "fastapi.tar.gz", runtime: "python", answers: &[("/", 200, &["\"scheme\":\"http\""])] },
    Application {
        file: "express.tar.gz",
        runtime: "nodejs",
        answers: &[("/", 200, &["\"bcrypt\":true", "\"sharp\":true", "\"scheme\":\"http\""])],
    },
    Application {
        file: "php.zip",
        runtime: "php",
        answers: &[
            ("/shop/7?a=b", 200, &["<p>/shop/7 by Twig 3.", "asked by http, HELLO"]),
            ("/config/app.ini", 200, &["<p>/config/app.ini by Twig 3."]),
        ],
    },
    Application {
        file: "war.war",
        runtime: "java-tomcat",
        answers: &[("/", 200, &["Visit 1 at http://", "grüße", "<b>JDK</b>"]), ("/WEB-INF/web.xml", 404, &[])],
    },
    Application {
        file: "war-javax.war",
        runtime: "java-tomcat",
        answers: &[("/", 200, &["name of an older page"]), ("/hello", 200, &["hello by http"])],
    },
    Application { file: "jar.jar", runtime: "java", answers: &[("/", 200, &["Java ", "asked by http"])] },
    Application { file: "go.tar.gz", runtime: "binary", answers: &[("/", 200, &["Served by Go."])] },
    Application {
        file: "static.zip",
        runtime: "static",
        answers: &[
            ("/", 200, &["Files, <a"]),
            ("/about", 200, &["<p>About."]),
            ("/css/bootstrap.min.css", 200, &["Bootstrap"]),
            ("/none", 404, &["Nothing is here."]),
        ],
    },
];

impl Application {
    fn app(&self) -> String {
        format!("t-{}", self.file.split('.').next().unwrap_or_default())
    }

    fn path(&self) -> Result<String> {
        let directory = std::env::var_os("DINP_APPLICATIONS").map(PathBuf::from).ok_or_else(|| {
            Error::other(
                "DINP_APPLICATIONS names no directory that integration/applications/pack has filled".to_owned(),
            )
        })?;
        Ok(directory.join(self.file).to_string_lossy().into_owned())
    }

    async fn deploy(&self, cluster: &Cluster) -> Result<()> {
        let app = self.app();
        let said = cluster.dinp(&["deploy", &self.path()?, "--app", &app]).await?;
        let because = format!("runtime {}, because ", self.runtime);
        let builds: Vec<Build> = cluster.cli().list(&["build", "ls", "--app", &app]).await?;
        let build = builds.first().ok_or_else(|| Error::other(format!("{app} has no build: {said}")))?;
        let log = cluster.dinp(&["build", "log", &build.id.to_string()]).await?;
        if log.contains(&because) && !log.contains("built by the Docker Engine") {
            return Ok(());
        }
        Err(Error::other(format!("{app} is not built directly by runtime {}: {log}", self.runtime)))
    }

    async fn answers(&self, cluster: &Cluster) -> Result<()> {
        let host = format!("{}.apps.localhost", self.app());
        for (path, status, parts) in self.answers {
            eventually(&format!("{host}{path} answers {status} with {parts:?}"), secs(60), async || {
                let answer = cluster.router().get(path, &host).await.map_err(|error| error.chain())?;
                let is_whole = parts.iter().all(|part| answer.body.contains(part));
                if answer.status == *status && is_whole { Ok(()) } else { Err(format!("{answer:?}")) }
            })
            .await?;
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Build {
    id: u64,
}

#[tokio::test]
async fn each_is_deployed_by_one_line_and_serves() -> Scenario {
    let cluster = Cluster::shared().await?;
    // One person has at most five packages under way.
    let deployments = APPLICATIONS.iter().map(|application| application.deploy(&cluster));
    futures_util::stream::iter(deployments).buffer_unordered(4).try_collect::<()>().await?;
    try_join_all(APPLICATIONS.iter().map(|application| application.answers(&cluster))).await?;
    let echoed = echo(cluster.published(80)?, "t-fastapi.apps.localhost").await;
    assert!(matches!(&echoed, Ok(text) if text == "\u{5}HELLO"), "a WebSocket repeats in capitals: {echoed:?}");
    Ok(())
}

/// Nobody gets at what only the builder's host reaches, by a package's address.
#[tokio::test]
async fn a_package_is_not_fetched_from_the_clusters_own_network() -> Scenario {
    let cluster = Cluster::shared().await?;
    for address in ["http://127.0.0.1:1985/x.tar.gz", "http://control:1980/x.tar.gz", "http://169.254.169.254/x.tar.gz"]
    {
        let refused = cluster.dinp(&["deploy", address, "--app", "t-fetched"]).await;
        let said = refused.expect_err("it is fetched").chain();
        assert!(
            said.contains("has no address that is public") && said.contains("removed app t-fetched again"),
            "{said}"
        );
    }
    Ok(())
}

/// What `docs/runtimes.md` says of a runtime of one's own, line by line, on a control machine that was set up from packages.
#[tokio::test]
async fn the_example_of_an_operators_own_runtime_works_as_it_is_described() -> Scenario {
    let cluster = Cluster::shared().await?;
    let control = cluster.host("control");
    for line in [
        "mkdir -p /etc/dinp/base-images",
        "cp -R /usr/share/doc/dinp-builder/examples/ruby/base-ruby /etc/dinp/base-images/",
        "cp /usr/share/doc/dinp-builder/examples/ruby/ruby.toml /etc/dinp/builder.d/",
        "apt-get -q update && apt-get -qy install mmdebstrap && dinp setup base-images --only base-ruby",
    ] {
        control.exec(line).await?;
    }
    let again = control.exec("dinp setup base-images --only base-ruby --check").await?;
    assert!(again.contains("all is as it should be"), "{again}");

    let package = cluster.package("tree-binary").await?.without("control")?;
    let page = r#"run ->(env) { [200, { "content-type" => "text/plain" }, ["Ruby by #{env["rack.url_scheme"]}\n"]] }"#;
    let package = package.with_file("config.ru", page)?.packed().await?;
    cluster.dinp(&["deploy", &package, "--app", "t-ruby"]).await?;
    let answer = cluster.router().get("/", "t-ruby.apps.localhost").await?;
    assert_eq!((answer.status, answer.body.as_str()), (200, "Ruby by http\n"));
    let runtimes = cluster.dinp(&["build", "runtimes"]).await?;
    assert!(runtimes.lines().any(|line| line.starts_with("ruby ") && line.contains("puma ")), "{runtimes}");
    control.exec("rm -r /etc/dinp/base-images /etc/dinp/builder.d/ruby.toml").await?;
    Ok(())
}

/// Says one word to the WebSocket at `/echo` (RFC 6455, 4.1 and 5.2); returns the frame that comes back after its first byte.
async fn echo(port: u16, host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!(
        "GET /echo HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
    }
    // The last frame of a text, whose mask changes nothing: clients have to mask.
    stream.write_all(b"\x81\x85\0\0\0\0hello").await?;
    let mut frame = [0; 7];
    stream.read_exact(&mut frame).await?;
    Ok(String::from_utf8_lossy(&frame[1..]).into_owned())
}
