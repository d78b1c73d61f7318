//! The two ways to build, beside each other: the same configuration, and the same files with mode, owner, time and content.

use super::support::{World, digest, gzip, sh};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::process::Command;
use tar::{Builder, EntryType, Header};
use zip::write::SimpleFileOptions;

/// The same template twice; a line that goes on is more than the direct way reads.
const TEMPLATE: &str = "COPY app/ {{app_dir}}/\nWORKDIR {{app_dir}}\nUSER 1000:1000\nENV PORT=8080 A=\"b c\"\n\
                        EXPOSE 8080 53/udp\nSTOPSIGNAL SIGQUIT\nLABEL of=\"{{app}}\"\nENTRYPOINT [\"/app/run\"]";

type Tar = Builder<Vec<u8>>;
type Fill = Box<dyn Fn(&mut Tar)>;

fn header(kind: EntryType, size: usize, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_mtime(1_700_000_000);
    header
}

fn file(tar: &mut Tar, path: &str, mode: u32, content: &[u8]) {
    tar.append_data(&mut header(EntryType::Regular, content.len(), mode), path, content).unwrap();
}

fn directory(tar: &mut Tar, path: &str, mode: u32) {
    tar.append_data(&mut header(EntryType::Directory, 0, mode), path, std::io::empty()).unwrap();
}

fn link(tar: &mut Tar, kind: EntryType, path: &str, target: &str) {
    tar.append_link(&mut header(kind, 0, 0o777), path, target).unwrap();
}

/// Packages that say something that one way could understand otherwise than the other, by what that is.
fn packages() -> Vec<(&'static str, Vec<u8>)> {
    let deep = ["a-directory-with-a-long-name"; 12].join("/");
    let long = "n".repeat(200);
    let large: Vec<u8> = (0..3_500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let tarred: Vec<(&'static str, Fill)> = vec![
        ("one file", Box::new(|tar| file(tar, "run", 0o755, b"x"))),
        ("empty file", Box::new(|tar| file(tar, "run", 0o644, b""))),
        (
            "modes",
            Box::new(|tar| {
                [0, 0o111, 0o400, 0o640, 0o777].iter().for_each(|mode| file(tar, &format!("m{mode:o}"), *mode, b"x"))
            }),
        ),
        ("set-id bits", Box::new(|tar| file(tar, "run", 0o6755, b"x"))),
        ("sticky directory", Box::new(|tar| directory(tar, "tmp/", 0o1777))),
        (
            "closed directory",
            Box::new(|tar| {
                directory(tar, "d/", 0o700);
                file(tar, "d/f", 0o600, b"x");
            }),
        ),
        (
            "owners",
            Box::new(|tar| {
                let mut header = header(EntryType::Regular, 1, 0o644);
                header.set_uid(1234);
                header.set_gid(77);
                tar.append_data(&mut header, "f", &b"x"[..]).unwrap();
            }),
        ),
        ("parents that stand in names alone", Box::new(|tar| file(tar, "a/b/c/d", 0o644, b"x"))),
        (
            "directory named after its content",
            Box::new(|tar| {
                file(tar, "d/f", 0o644, b"x");
                directory(tar, "d/", 0o750);
            }),
        ),
        (
            "directory named twice",
            Box::new(|tar| {
                directory(tar, "d/", 0o755);
                directory(tar, "d/", 0o700);
                file(tar, "d/f", 0o644, b"x");
            }),
        ),
        (
            "empty directories",
            Box::new(|tar| {
                directory(tar, "a/", 0o755);
                directory(tar, "a/b/", 0o755);
            }),
        ),
        (
            "the top itself",
            Box::new(|tar| {
                directory(tar, "./", 0o700);
                file(tar, "./run", 0o755, b"x");
            }),
        ),
        (
            "link to a file",
            Box::new(|tar| {
                file(tar, "run", 0o755, b"x");
                link(tar, EntryType::Symlink, "l", "run");
            }),
        ),
        (
            "link before its target",
            Box::new(|tar| {
                link(tar, EntryType::Symlink, "l", "run");
                file(tar, "run", 0o755, b"x");
            }),
        ),
        (
            "link to a directory",
            Box::new(|tar| {
                file(tar, "d/f", 0o644, b"x");
                link(tar, EntryType::Symlink, "l", "d");
            }),
        ),
        (
            "link upwards",
            Box::new(|tar| {
                file(tar, "f", 0o644, b"x");
                link(tar, EntryType::Symlink, "a/b/l", "../../f");
            }),
        ),
        (
            "link to nothing",
            Box::new(|tar| {
                file(tar, "f", 0o644, b"x");
                link(tar, EntryType::Symlink, "l", "nothing");
            }),
        ),
        (
            "links in a row",
            Box::new(|tar| {
                file(tar, "f", 0o644, b"x");
                link(tar, EntryType::Symlink, "a", "b");
                link(tar, EntryType::Symlink, "b", "f");
            }),
        ),
        (
            "long target",
            Box::new({
                let long = long.clone();
                move |tar| {
                    file(tar, &long, 0o644, b"x");
                    link(tar, EntryType::Symlink, "l", &long);
                }
            }),
        ),
        (
            "hard link",
            Box::new(|tar| {
                file(tar, "f", 0o755, b"x");
                link(tar, EntryType::Link, "d/h", "f");
            }),
        ),
        (
            "several hard links",
            Box::new(|tar| {
                file(tar, "f", 0o755, b"x");
                (0..3).for_each(|n| link(tar, EntryType::Link, &format!("h{n}"), "f"));
            }),
        ),
        (
            "long name",
            Box::new({
                let long = long.clone();
                move |tar| file(tar, &long, 0o644, b"x")
            }),
        ),
        ("deep name", Box::new(move |tar| file(tar, &format!("{deep}/f"), 0o755, b"x"))),
        ("name of 100 bytes", Box::new(|tar| file(tar, &"h".repeat(100), 0o644, b"x"))),
        ("name of 101 bytes", Box::new(|tar| file(tar, &"h".repeat(101), 0o644, b"x"))),
        (
            "names of many scripts",
            Box::new(|tar| ["ünïcödé", "文件", "файл", "🦀"].iter().for_each(|name| file(tar, name, 0o644, b"x"))),
        ),
        (
            "names with signs",
            Box::new(|tar| {
                ["a b", "q\"uote", "it's", "$HOME", "*", "-rf", "#x", ".hidden", "Dockerfile", ".dockerignore"]
                    .iter()
                    .for_each(|name| file(tar, name, 0o644, b"x"))
            }),
        ),
        (
            "names that differ in case",
            Box::new(|tar| {
                file(tar, "readme", 0o644, b"x");
                file(tar, "README", 0o644, b"y");
            }),
        ),
        (
            "times",
            Box::new(|tar| {
                [0, 1, 86_400, 4_000_000_000].iter().for_each(|time| {
                    let mut header = header(EntryType::Regular, 1, 0o644);
                    header.set_mtime(*time);
                    tar.append_data(&mut header, format!("t{time}"), &b"x"[..]).unwrap();
                })
            }),
        ),
        (
            "over pieces",
            Box::new(move |tar| {
                file(tar, "large", 0o644, &large);
                file(tar, "after", 0o755, b"x");
            }),
        ),
        ("as large as a piece", Box::new(|tar| file(tar, "f", 0o644, &vec![7; (1 << 20) - 512]))),
        (
            "many files",
            Box::new(|tar| {
                (0..1_500).for_each(|n| file(tar, &format!("d{}/f{n}", n % 37), 0o644, n.to_string().as_bytes()))
            }),
        ),
        ("zeros", Box::new(|tar| file(tar, "zeros", 0o644, &vec![0; 5_000_000]))),
    ];
    let mut all: Vec<_> = tarred
        .into_iter()
        .map(|(what, fill)| {
            let mut tar = Builder::new(Vec::new());
            fill(&mut tar);
            (what, gzip(&tar.into_inner().unwrap()))
        })
        .collect();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (path, mode) in [("run", 0o755), ("d/page.html", 0o644), ("d/e/stored", 0o600)] {
        zip.start_file(path, SimpleFileOptions::default().unix_permissions(mode)).unwrap();
        zip.write_all(path.as_bytes()).unwrap();
    }
    zip.add_symlink("link", "d/page.html", SimpleFileOptions::default()).unwrap();
    all.push(("zip", zip.finish().unwrap().into_inner()));
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "run", 0o755, b"in two parts");
    let bytes = tar.into_inner().unwrap();
    let (one, other) = bytes.split_at(700);
    all.push(("gzip in members", [gzip(one), gzip(other)].concat()));
    all.push(("tar without gzip", bytes));
    all
}

/// What nodes get: the configuration without what is of the build, and every entry of the root file system.
fn seen(image: &str) -> (Value, BTreeMap<String, String>) {
    let inspected = sh("docker", &["image", "inspect", "-f", "{{json .Config}}", image]);
    let config: Value = serde_json::from_str(&inspected).unwrap();
    let mut kept = serde_json::Map::new();
    for key in [
        "Env",
        "Cmd",
        "Entrypoint",
        "ExposedPorts",
        "User",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "Volumes",
        "OnBuild",
        "Healthcheck",
    ] {
        kept.insert(key.to_owned(), config.get(key).cloned().unwrap_or(Value::Null));
    }
    let labels = kept["Labels"].as_object_mut().unwrap();
    for of_the_build in
        ["dinp.image.builder", "dinp.image.build", "dinp.image.runtime", "org.opencontainers.image.version"]
    {
        labels.remove(of_the_build);
    }
    let container = sh("docker", &["create", image]);
    let exported = Command::new("docker").args(["export", &container]).output().unwrap();
    sh("docker", &["rm", &container]);
    assert!(exported.status.success());
    (kept.into(), tree(&exported.stdout))
}

fn tree(exported: &[u8]) -> BTreeMap<String, String> {
    let mut entries: BTreeMap<String, String> = BTreeMap::new();
    let mut links = Vec::new();
    for entry in tar::Archive::new(exported).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let header = entry.header().clone();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        // What is the container's is not the image's.
        if !path.starts_with("app/") && path != "etc/x" {
            continue;
        }
        let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
        let kind = header.entry_type();
        if kind == EntryType::Link {
            links.push((path, target.unwrap()));
            continue;
        }
        // What is made on the way has the time at which it was made.
        let time = if kind == EntryType::Regular { header.mtime().unwrap() } else { 0 };
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        let content = digest(&content);
        entries.insert(path, format!("{kind:?} {mode:o} {uid}:{gid} {time} {target:?} {content}"));
    }
    // Of several names of one file any may be the first.
    for (path, target) in links {
        let same = entries[&target].clone();
        entries.insert(path, same);
    }
    entries
}

// Each of the two builds every other package: one would take a minute.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_the_same_whichever_way_it_is_built() {
    build_both_ways(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_an_image_of_every_other_package() {
    build_both_ways(1).await;
}

async fn build_both_ways(first: usize) {
    let mut world = World::start(&[]).await;
    let dir = dinp_common::testing::TestDir::new("golden");
    let path = dir.path().join("root.tar");
    let mut root = Builder::new(std::fs::File::create(&path).unwrap());
    let mut top = header(EntryType::Directory, 0, 0o750);
    root.append_data(&mut top, "app/", std::io::empty()).unwrap();
    root.append_data(&mut header(EntryType::Regular, 1, 0o644), "etc/x", &b"x"[..]).unwrap();
    root.finish().unwrap();
    let changes = ["ENV PATH=/bin PORT=1", "CMD [\"sh\"]", "LABEL of=base", "EXPOSE 80"];
    world.push_base("base-x", &path.display().to_string(), changes.into_iter());
    let base = "{registry}/dinp/base-x:{base_tag}";
    world.runtime_on(base, "direct", TEMPLATE);
    world.runtime_on(base, "engine", &TEMPLATE.replacen("COPY app/ ", "COPY app/ \\\n", 1));
    world.formats(&["direct", "engine"], "\"tar.gz\", \"tar\", \"zip\"");

    for (number, (what, package)) in packages().into_iter().enumerate().skip(first).step_by(2) {
        let mut both = Vec::new();
        for runtime in ["direct", "engine"] {
            let id = world.begin("web", &format!("{runtime}{number}"), runtime, package.clone()).await;
            let image = world.succeeded(id).await;
            let log = world.log(id).await;
            assert_eq!(log.contains("built by the Docker Engine"), runtime == "engine", "{what}: {log}");
            world.pull(&image);
            both.push(seen(&image));
        }
        let (engine, direct) = (both.pop().unwrap(), both.pop().unwrap());
        assert_eq!(direct.0, engine.0, "{what}");
        let differing =
            direct.1.keys().chain(engine.1.keys()).filter(|path| direct.1.get(*path) != engine.1.get(*path));
        let differing: Vec<_> = differing.map(|path| (path, direct.1.get(path), engine.1.get(path))).collect();
        assert!(differing.is_empty(), "{what}: {differing:#?}");
    }
    world.stop_builder().await;
}
