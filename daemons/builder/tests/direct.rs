//! Images that are made without a Docker Engine, in a real registry with accounts: the builder here has none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dinp_common::api::builder::BuildStatus;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use support::{World, digest, eventually, gzip, tar_gz};

const BASE: &str = "{registry}/dinp/base-x:{base_tag}";
const TEMPLATE: &str =
    "COPY app/ {{app_dir}}/\nWORKDIR {{app_dir}}\nUSER 1000:1000\nENV PORT=8080\nEXPOSE 8080\nCMD [\"/app/run\"]";

/// A tar of these entries: a directory's name ends with a slash, a link's with its target after `->`.
fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(0);
        if let Some((name, target)) = name.split_once("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, target).unwrap();
        } else if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, name, std::io::empty()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

/// Text that can hardly be packed.
fn noise(length: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + (state % 95) as u8)
    };
    (0..length).map(|_| next()).collect()
}

async fn with_base(layers: &[Vec<u8>]) -> World {
    let world = World::without_engine().await;
    let config = json!({"Env": ["PATH=/bin", "PORT=1"], "Labels": {"of": "base"}, "Cmd": ["sh"]});
    world.registry.put_image("dinp/base-x", "test", layers, config).await;
    world.runtime_on(BASE, "x", TEMPLATE);
    world
}

/// The manifest of an image of ann's, and its configuration.
async fn image(world: &World, app: &str, version: &str) -> (Value, Value) {
    let repository = format!("team1/{app}");
    let manifest = world.registry.get(&repository, &format!("manifests/{version}")).await;
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let config = world.registry.get(&repository, &format!("blobs/{config}")).await;
    assert_eq!(config.len() as u64, manifest["config"]["size"].as_u64().unwrap());
    (manifest, serde_json::from_slice(&config).unwrap())
}

/// A layer as nodes unpack it: what it holds by path, as mode, owner and content.
async fn unpacked(world: &World, app: &str, layer: &Value) -> (String, BTreeMap<String, (u32, u64, Vec<u8>)>) {
    let packed =
        world.registry.get(&format!("team1/{app}"), &format!("blobs/{}", layer["digest"].as_str().unwrap())).await;
    assert_eq!(packed.len() as u64, layer["size"].as_u64().unwrap());
    assert_eq!(digest(&packed), layer["digest"]);
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    let mut entries = BTreeMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        entries.insert(path, (header.mode().unwrap(), header.uid().unwrap(), content));
    }
    (digest(&bytes), entries)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_one_layer_on_the_base_and_a_known_one_is_not_sent_again() {
    let layers = [tar(&[("bin/", ""), ("bin/sh", "#!"), ("app/", "")]), tar(&[("etc/x", "y")])];
    let mut world = with_base(&layers).await;
    let package = tar_gz(&[("run", "hello"), ("static/page", "world")]);
    let id = world.begin("web", "v1", "x", package.clone()).await;
    let name = world.succeeded(id).await;
    let manifest_bytes = world.registry.get("team1/web", "manifests/v1").await;
    assert!(name.ends_with(&format!("/team1/web:v1@{}", digest(&manifest_bytes))), "{name}");

    let (manifest, config) = image(&world, "web", "v1").await;
    let below: Vec<String> = layers.iter().map(|layer| digest(&gzip(layer))).collect();
    let all = manifest["layers"].as_array().unwrap();
    assert_eq!([&all[0]["digest"], &all[1]["digest"]], [&below[0], &below[1]]);
    assert_eq!((all.len(), all[0]["mediaType"].as_str().unwrap()), (3, "application/vnd.oci.image.layer.v1.tar+gzip"));
    let (diff_id, entries) = unpacked(&world, "web", &all[2]).await;
    let file = |mode, content: &str| (mode, 0, content.as_bytes().to_vec());
    let expected = [
        ("app/", (0o755, 0, Vec::new())),
        ("app/run", file(0o755, "hello")),
        ("app/static/page", file(0o755, "world")),
    ];
    assert_eq!(entries, expected.map(|(path, entry)| (path.to_owned(), entry)).into());
    let ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(ids.last().unwrap(), &Value::from(diff_id));
    let of = &config["config"];
    assert_eq!((&of["Env"], &of["User"]), (&json!(["PATH=/bin", "PORT=8080"]), &json!("1000:1000")));
    assert_eq!((&of["Labels"]["of"], &of["Labels"]["dinp.image.runtime"]), (&json!("base"), &json!("x")));
    assert_eq!((&of["WorkingDir"], &of["Cmd"]), (&json!("/app"), &json!(["/app/run"])));
    let log = world.log(id).await;
    assert!(log.contains("WORKDIR /app\n") && log.contains("image made in"), "{log}");

    // A builder ends when it is idle, and what it knows stays.
    world.stop_builder().await;
    world.start_builder().await;
    for (app, version) in [("web", "v2"), ("other", "v1")] {
        let id = world.begin(app, version, "x", package.clone()).await;
        world.succeeded(id).await;
        assert!(world.log(id).await.contains("is known"), "{}", world.log(id).await);
        assert_eq!(image(&world, app, version).await.0["layers"], manifest["layers"]);
    }
    let id = world.begin("web", "v3", "x", tar_gz(&[("run", "other")])).await;
    world.succeeded(id).await;
    assert_ne!(image(&world, "web", "v3").await.0["layers"], manifest["layers"]);
    assert!(world.registry.stored("_uploads/").is_empty());
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_package_gives_the_same_image_wherever_it_is_built() {
    let layers = [tar(&[("bin/sh", "#!")])];
    let noise = noise(3_000_000);
    let mut digests = Vec::new();
    for _ in 0..2 {
        let mut world = with_base(&layers).await;
        let id = world.begin("web", "v1", "x", tar_gz(&[("run", &noise)])).await;
        let name = world.succeeded(id).await;
        let (manifest, _) = image(&world, "web", "v1").await;
        let (_, entries) = unpacked(&world, "web", &manifest["layers"][1]).await;
        assert_eq!(entries["app/"], (0o755, 0, Vec::new()), "what the base lacks is made");
        assert!(entries["app/run"].2 == noise.as_bytes(), "it goes over the pieces as one");
        // The registry's address is of this run, and stands in the name of the base.
        digests.push((manifest["layers"].clone(), name.len()));
        world.stop_builder().await;
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_the_engine_says_so() {
    let mut world = with_base(&[tar(&[("srv->elsewhere", ""), ("opt/app/there", "x")])]).await;
    for (runtime, template, why) in [
        ("run", "COPY app/ /app/\nRUN true", "it has RUN"),
        ("link", "COPY app/ /srv/app/", "/srv of the base is no directory"),
        ("full", "COPY app/ /opt/app/", "the base has something in /opt/app"),
        ("workdir", "COPY app/ /app/\nWORKDIR /other", "the base has no directory /other"),
    ] {
        world.runtime_on(BASE, runtime, template);
        let id = world.begin("web", runtime, runtime, tar_gz(&[("run", "x")])).await;
        let build = world.ended(id).await;
        assert_eq!(build.status, BuildStatus::Failed);
        assert!(build.reason.contains("the Docker Engine cannot be reached"), "{}", build.reason);
        let log = world.log(id).await;
        assert!(log.contains(&format!("built by the Docker Engine: {why}")), "{log}");
    }
    assert!(world.tags("team1/web").await.is_empty());

    world.stop_builder().await;
    world.is_direct = false;
    world.start_builder().await;
    world.runtime_on(BASE, "x", TEMPLATE);
    let id = world.begin("web", "off", "x", tar_gz(&[("run", "x")])).await;
    assert_eq!(world.ended(id).await.status, BuildStatus::Failed);
    assert!(world.log(id).await.contains("built by the Docker Engine: build.direct is off"));
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_no_runtime_gets_the_one_that_takes_the_package() {
    let mut world = with_base(&[tar(&[("bin/sh", "#!")])]).await;
    let upload = async |version: &str, package: Vec<u8>| {
        world.upload(&[("app", "web"), ("version", version), ("user", "ann"), ("owner", "team1")], package).await
    };
    let (status, build) = upload("v1", tar_gz(&[("run", "x")])).await;
    assert_eq!((status, build["runtime"].as_str()), (202, Some("x")), "{build}");
    let id = build["id"].as_u64().unwrap();
    world.succeeded(id).await;
    let log = world.log(id).await;
    assert!(log.contains("runtime x, because it takes such a package\n"), "{log}");
    let (status, problem) = upload("v2", tar_gz(&[("package.json", "{}"), ("app.py", "x")])).await;
    assert_eq!((status, problem["field"].as_str()), (422, Some("runtime")), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("name one: nodejs, because the package has package.json; python"), "{detail}");
    world.stop_builder().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_cut_off_leaves_no_tag() {
    let mut world = with_base(&[tar(&[("bin/sh", "#!")])]).await;
    let noise = noise(20_000_000);
    let package = tar_gz(&[("run", &noise)]);
    let is_sending = async |world: &World, app: &str| {
        eventually("the layer is being sent", async || {
            let sizes = world
                .registry
                .stored(&format!("team1/{app}/_uploads/"))
                .into_iter()
                .map(|file| file.metadata().map_or(0, |file| file.len()));
            sizes.max().filter(|size| *size > 1_000_000)
        })
        .await;
    };

    let id = world.begin("one", "v1", "x", package.clone()).await;
    is_sending(&world, "one").await;
    world.registry.stop();
    let build = world.ended(id).await;
    assert_eq!(build.status, BuildStatus::Failed);
    assert!(build.reason.contains("the registry") && build.reason.contains("cannot be reached"), "{}", build.reason);
    world.registry.resume().await;
    assert!(world.tags("team1/one").await.is_empty());

    world.stop_builder().await;
    world.start_program().await;
    let id = world.begin("two", "v1", "x", package.clone()).await;
    is_sending(&world, "two").await;
    world.stop_program().await;
    assert!(world.tags("team1/two").await.is_empty());
    world.start_builder().await;
    world.succeeded(id).await;
    assert_eq!(world.tags("team1/two").await, ["v1"], "it goes on where there is a builder again");
    world.stop_builder().await;
}
