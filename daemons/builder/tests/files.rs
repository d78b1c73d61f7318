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

/// The value of a key in a unit; 1G are 1024 MiB.
fn number(unit: &str, key: &str) -> u64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../systemd").join(unit);
    let text = std::fs::read_to_string(path).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap().to_owned();
    value.strip_suffix('G').map_or_else(|| value.parse().unwrap(), |gib| gib.parse::<u64>().unwrap() * 1024)
}

#[test]
fn the_slice_of_containers_is_shipped_has_room_for_the_builds_and_leaves_the_builder_its_own() {
    let config = BuilderConfig::default();
    let slice = config.build.slice.as_str();
    let shipped = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../common/Cargo.toml")).unwrap();
    assert!(shipped.contains(&format!("systemd/{slice}\"")), "the package has it");
    let service = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../systemd/dinp-builder.service");
    let service = std::fs::read_to_string(service).unwrap();
    assert!(service.contains(&format!("Wants={slice}\n")), "it has its limits before the first container");

    let memory = number(slice, "MemoryMax");
    assert_eq!(memory, u64::from(config.concurrent_builds * config.build.memory_mb));
    let builder = number("dinp-builder.service", "MemoryMax");
    assert_eq!(number("dinp-build.slice", "MemoryMax"), memory + builder);
    assert!(number(slice, "TasksMax") < number("dinp-build.slice", "TasksMax"));
    assert!(number(slice, "CPUWeight") < 100, "less than the builder's, which is the default");
}
