//! Where the containers of builds run.

use crate::support::{World, eventually, sh, tar_gz};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_builds_have_a_slice_of_their_own() {
    let world = World::start(&["base-binary"]).await;
    world.runtime("slow", "RUN echo first && sleep 60");
    let id = world.begin("sliced-app", "v1", "slow", tar_gz(&[("app", "#!/bin/sh\n")])).await;
    let container = eventually("the container of the build runs", async || {
        let running = sh("docker", &["ps", "-q", "--filter", "label=dinp.image.app=sliced-app"]);
        running.lines().next().map(str::to_owned)
    })
    .await;
    let parent = sh("docker", &["inspect", "-f", "{{.HostConfig.CgroupParent}}", &container]);
    assert!(parent.ends_with("dinp-build-containers.slice"), "{parent}");
    let path = format!("/v1/builds/{id}");
    assert_eq!(world.request(reqwest::Method::DELETE, &path).send().await.unwrap().status(), 204);
}
