//! The file of /etc/dinp: defaults as the code has them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dinp_builder::config::BuilderConfig;
use std::path::Path;

#[test]
fn the_packaged_file_shows_every_default() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/builder.toml")).unwrap();
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
