//! Packages that are built by a Dockerfile of their own.

use crate::support::{World, sh, tar_gz};
use crate::{Container, SERVER};

/// Two stages, of which the first runs something without network, and labels that are the platform's to give.
const DOCKERFILE: &str = r#"ARG DINP_REGISTRY
FROM ${DINP_REGISTRY}/dinp/base-python:test AS prepare
USER 0
COPY server.py /made/server.py
RUN printf 'made by uid %s\n' "$(id -u)" >/made/note && ls /sys/class/net >/made/interfaces
FROM ${DINP_REGISTRY}/dinp/base-python:test
LABEL dinp.image.app=another dinp.image.runtime=another mine=kept
COPY --from=prepare /made/ /app/
ENV GREETING=hello
ENTRYPOINT ["python3", "server.py"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_built_by_its_own_dockerfile_where_the_operator_allows_it() {
    let mut world = World::start(&["base-python"]).await;
    let package = || tar_gz(&[("Dockerfile", DOCKERFILE), ("server.py", SERVER)]);
    let query = [("app", "own"), ("runtime", "dockerfile"), ("user", "ann"), ("owner", "team1")];
    let (status, body) = world.upload(&query, package()).await;
    assert_eq!((status, body["type"].as_str()), (422, Some("urn:dinp:unknown-runtime")), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("build.own_dockerfiles"), "{body}");

    world.stop_builder().await;
    world.own_dockerfiles = true;
    world.start_builder().await;
    let unnamed = [("app", "own"), ("version", "v1"), ("user", "ann"), ("owner", "team1")];
    let (status, body) = world.upload(&unnamed, package()).await;
    assert_eq!(status, 202, "{body}");
    let id = body["id"].as_u64().unwrap();
    let image = world.succeeded(id).await;
    let log = world.log(id).await;
    assert!(log.contains("runtime dockerfile, because the package has Dockerfile\n"), "{log}");
    assert!(log.contains("built by its own Dockerfile\n"), "{log}");

    world.pull(&image);
    let labels = sh("docker", &["inspect", "-f", "{{json .Config.Labels}}", &image]);
    let labels: serde_json::Value = serde_json::from_str(&labels).unwrap();
    assert_eq!(labels["dinp.image.app"], "own", "{labels}");
    assert_eq!(labels["dinp.image.runtime"], "dockerfile", "{labels}");
    assert_eq!(labels["mine"], "kept", "{labels}");
    let container = Container::run(&image, &world.client).await;
    assert_eq!(container.get("/", &world.client).await, "hello");
    let read = |file: &str| sh("docker", &["exec", &container.id, "cat", &format!("/app/{file}")]);
    assert_eq!(read("note"), "made by uid 0");
    assert_eq!(read("interfaces"), "lo", "a build has no network");
    drop(container);
    sh("docker", &["rmi", "-f", &image]);

    // The Engine would pull this with the builder's account.
    let others = format!("FROM {}/team2/shop:v1\n", world.registry.address());
    let (status, body) = world.upload(&query, tar_gz(&[("Dockerfile", &others)])).await;
    assert_eq!((status, body["type"].as_str()), (422, Some("urn:dinp:package-refused")), "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.starts_with("line 1 of the Dockerfile: FROM may not name "), "{detail}");
    let failing = tar_gz(&[("Dockerfile", "FROM scratch\nRUN /nothing\n")]);
    let (_, body) = world.upload(&query, failing).await;
    let build = world.ended(body["id"].as_u64().unwrap()).await;
    assert!(build.reason.starts_with("the build failed: "), "{build:?}");
    assert!(sh("docker", &["images", "-q", "--filter", "label=dinp.image.app=own"]).is_empty(), "something is left");
}
