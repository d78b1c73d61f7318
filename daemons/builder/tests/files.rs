//! The files of /etc/dinp: defaults as the code has them, and the Dockerfiles that the runtimes make.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dinp_builder::config::BuilderConfig;
use dinp_builder::runtime::Runtimes;
use dinp_builder::template::Values;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
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
        ..BuilderConfig::default()
    };
    assert_eq!(toml::to_string(&read).unwrap(), toml::to_string(&expected).unwrap());
}

#[test]
fn runtimes_make_the_dockerfiles_that_are_expected() {
    let runtimes = Runtimes::new(root().join("etc/builder.d"), "control:5000".into(), Some("bookworm".into()));
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
    let runtimes = Runtimes::new(dir.path().into(), "control:5000".into(), Some("bookworm".into()));
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
