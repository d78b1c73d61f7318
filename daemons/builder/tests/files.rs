//! The files of /etc/dinp: defaults as the code has them, and the Dockerfiles that the runtimes make.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dinp_builder::config::BuilderConfig;
use dinp_builder::runtime::{Bases, Runtimes};
use dinp_builder::template::Values;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn bases<const N: usize>(digests: [(&str, &str); N]) -> Bases {
    let digests = digests.map(|(name, digest)| (name.to_owned(), digest.to_owned())).into();
    Bases::new("control:5000".into(), Some("bookworm".into()), digests)
}

#[test]
fn a_base_has_the_digest_that_the_operator_gave_it_and_a_runtime_may_name_one_itself() {
    let (ours, own) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
    let dir = dinp_common::testing::TestDir::new("bases");
    for (name, base) in [
        ("pinned", "{registry}/dinp/b:{base_tag}".to_owned()),
        ("own", format!("{{registry}}/dinp/b:{{base_tag}}@{own}")),
        ("older", "{registry}/dinp/b:bullseye".into()),
        ("foreign", "elsewhere:5000/dinp/b:bookworm".into()),
    ] {
        let toml = format!("description = \"x\"\nbase = \"{base}\"\npackages = [\"zip\"]\ntemplate = \"t\"\n");
        std::fs::write(dir.path().join(format!("{name}.toml")), toml).unwrap();
    }
    std::fs::write(dir.path().join("t"), "FROM {{base}}\n").unwrap();
    let runtimes = Runtimes::new(dir.path().into(), bases([("dinp/b:bookworm", &ours)]));
    let base = |name: &str| runtimes.get(&name.parse().unwrap()).unwrap().base.to_string();
    assert_eq!(base("pinned"), format!("control:5000/dinp/b:bookworm@{ours}"));
    assert_eq!(base("own"), format!("control:5000/dinp/b:bookworm@{own}"));
    assert_eq!(base("older"), "control:5000/dinp/b:bullseye");
    assert_eq!(base("foreign"), "elsewhere:5000/dinp/b:bookworm");
}

#[test]
fn the_packaged_file_shows_every_default() {
    let text = std::fs::read_to_string(root().join("etc/builder.toml")).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .filter(|line| !line.starts_with("# ") && *line != "#")
        .map(|line| format!("{line}\n"))
        .collect();
    let read: BuilderConfig = toml::from_str(&uncommented).unwrap();
    let expected = BuilderConfig {
        // These have no default in the file's own words.
        name: Some("builder1".into()),
        runtimes_dir: Some("/etc/dinp/builder.d".into()),
        base_tag: Some("bookworm".into()),
        bases: [("dinp/base-python:bookworm".into(), format!("sha256:{}", "0123456789abcdef".repeat(4)))].into(),
        ..BuilderConfig::default()
    };
    assert_eq!(toml::to_string(&read).unwrap(), toml::to_string(&expected).unwrap());
}

#[test]
fn runtimes_make_the_dockerfiles_that_are_expected() {
    let runtimes = Runtimes::new(root().join("etc/builder.d"), bases([]));
    let (sound, broken) = runtimes.list().unwrap();
    assert!(broken.is_empty(), "{broken:?}");
    assert_eq!(sound.iter().map(|runtime| runtime.name.as_str()).collect::<Vec<_>>(), ["binary", "python"]);
    for runtime in sound {
        let base = runtime.base.to_string();
        let values = Values::from([
            ("app", "web"),
            ("app_dir", "/app"),
            ("base", base.as_str()),
            ("runtime", runtime.name.as_str()),
            ("version", "v1"),
        ]);
        let made = runtime.template.render(&values, &[("dinp.image.app", "web".into())]).unwrap();
        let path = root().join(format!("daemons/builder/tests/golden/{}.Dockerfile", runtime.name));
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(made, golden, "{}", path.display());
    }
}

#[test]
fn broken_runtimes_are_named_and_do_not_hide_the_others() {
    let dir = dinp_common::testing::TestDir::new("runtimes");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let toml = "description = \"x\"\nbase = \"{registry}/dinp/b:{base_tag}\"\npackages = [\"zip\"]\n";
    write("good.toml", toml);
    write("good.Dockerfile", "FROM {{base}}\n");
    write("no-template.toml", toml);
    write("typo.toml", &toml.replace("packages", "package"));
    write("bad-base.toml", &toml.replace("dinp/b", "../b"));
    write("bad-template.toml", toml);
    write("bad-template.Dockerfile", "FROM {{base}}\nCOPY {{user}} /\n");
    let runtimes = Runtimes::new(dir.path().into(), bases([]));
    let (sound, broken) = runtimes.list().unwrap();
    assert_eq!(sound.len(), 1);
    assert_eq!(sound[0].base.to_string(), "control:5000/dinp/b:bookworm");
    let texts: Vec<String> = broken.iter().map(|error| dinp_common::error::ErrorChain(error).to_string()).collect();
    for (text, part) in
        texts.iter().zip(["image \"", "line 2: unknown placeholder user", "No such file", "unknown field `package`"])
    {
        assert!(text.contains(part), "{text}");
    }
    let unknown = runtimes.get(&"cobol".parse().unwrap()).unwrap_err();
    assert!(unknown.to_string().starts_with("runtime \"cobol\" does not exist; there are: "), "{unknown}");
}
