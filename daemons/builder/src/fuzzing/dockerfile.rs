//! Dockerfiles: what one of a package may ask the Engine for, and what is made of a template without the Engine.

use crate::direct::dockerfile::Plan;
use crate::own_dockerfile::{Allowed, check};
use serde_json::{Map, Value, json};

const REGISTRY: &str = "r:5000";
/// Most that a builder reads of a Dockerfile.
const MOST_BYTES: usize = 64 << 10;
/// Signs that Dockerfiles' words can be changed by after they were looked at.
const CHANGING: [char; 4] = ['$', '\\', '"', '\''];

/// A Dockerfile that is taken asks for no image, and for nothing of the network, that is not allowed: neither as today's Engines
/// read it nor as a reader does to whom a comment or an empty line ends the instruction before it.
pub fn own_dockerfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MOST_BYTES)]) else { return };
    let from = vec!["r:5000/dinp/*".into(), "docker.io/library/debian:12".into()];
    if check(text, &Allowed { registry: REGISTRY.into(), from }).is_err() {
        return;
    }
    for comments_end_lines in [false, true] {
        let mut stages = Stages::default();
        for instruction in joined(text, comments_end_lines) {
            assert_allowed(&instruction, &mut stages);
        }
        assert!(stages.begun > 0, "no stage at all");
    }
}

/// Instructions, where each line that ends with a backslash goes on in the next that is neither a comment nor empty; or not at
/// all where such a line comes between.
fn joined(text: &str, comments_end_lines: bool) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            goes_on &= !comments_end_lines;
            continue;
        }
        let part = line.trim_end_matches([' ', '\t']).strip_suffix('\\');
        let text = part.unwrap_or(line);
        match joined.last_mut() {
            Some(whole) if goes_on => whole.push_str(text),
            _ => joined.push(text.to_owned()),
        }
        goes_on = part.is_some();
    }
    joined
}

/// The stages so far.
#[derive(Default)]
struct Stages {
    names: Vec<String>,
    begun: usize,
    /// Takes its place among the names when the next stage begins.
    present: Option<String>,
}

fn assert_allowed(instruction: &str, stages: &mut Stages) {
    let mut words = instruction.split_ascii_whitespace().peekable();
    let word = words.next().unwrap_or_default().to_ascii_uppercase();
    let options: Vec<&str> = std::iter::from_fn(|| words.next_if(|word| word.starts_with("--"))).collect();
    let words: Vec<&str> = words.collect();
    match word.as_str() {
        "FROM" => {
            stages.names.extend(stages.present.take());
            stages.begun += 1;
            assert_image(words[0], &stages.names, instruction);
            stages.present = words.get(2).map(|name| name.to_ascii_lowercase());
        }
        "ONBUILD" => {
            let inner = instruction.trim_start().split_once(char::is_whitespace).map_or("", |(_, inner)| inner);
            let nested = inner.split_ascii_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            assert!(!matches!(nested.as_str(), "ONBUILD" | "FROM"), "{instruction:?}");
            assert_allowed(inner, stages);
        }
        "ADD" | "COPY" => {
            for stage in options.iter().filter_map(|option| option.strip_prefix("--from=")) {
                let number = stage.parse::<usize>().ok();
                let is_earlier = number.is_some_and(|number| number + 1 < stages.begun)
                    || stages.names.contains(&stage.to_ascii_lowercase());
                assert!(is_earlier, "{instruction:?}");
            }
            assert!(!options.iter().any(|option| option.contains(&CHANGING[1..])), "{instruction:?}");
            // https://..., git@host:path, anybody@host:path.
            let is_elsewhere = |word: &&str| word.contains(':') || word.contains(CHANGING);
            assert!(word == "COPY" || !words.iter().any(is_elsewhere), "{instruction:?}");
        }
        "RUN" => assert!(options.is_empty() || !instruction.contains("RUN --"), "{instruction:?}"),
        _ => {}
    }
    assert!(!matches!(word.as_str(), "RUN" | "ADD" | "COPY") || !instruction.contains("<<"), "{instruction:?}");
}

fn assert_image(image: &str, stages: &[String], instruction: &str) {
    let named = image.replace("${DINP_REGISTRY}", REGISTRY).replace("$DINP_REGISTRY/", "r:5000/");
    let is_allowed = named.strip_prefix("r:5000/dinp/").is_some_and(|rest| !rest.contains(".."))
        || named == "docker.io/library/debian:12"
        || named == "scratch"
        || stages.contains(&named.to_ascii_lowercase());
    assert!(is_allowed && !named.contains(CHANGING), "{instruction:?}");
}

/// A Dockerfile that is done without the Engine is a layer in one place and changes of known keys of the configuration, each
/// instruction told in the history.
pub fn plan(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MOST_BYTES)]) else { return };
    let Ok(plan) = Plan::parse(text) else { return };
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    for directory in plan.workdirs.iter().chain([&plan.destination]) {
        let path = directory.strip_prefix('/').unwrap_or_else(|| panic!("{directory:?} is not absolute"));
        assert!(path.split('/').all(is_plain), "{directory:?}");
    }
    let base = base();
    let image = plan.apply(&base, "sha256:11");
    let is_instruction = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let instructions: Vec<&str> = text.lines().map(str::trim).filter(is_instruction).skip(1).collect();
    let history: Vec<&Value> = image["history"].as_array().expect("a history").iter().collect();
    assert_eq!(history.len(), 1 + instructions.len(), "one of the base");
    for (told, instruction) in history[1..].iter().zip(&instructions) {
        assert_eq!(told["created_by"], *instruction);
        let word = instruction.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        assert!(!["RUN", "ADD", "FROM", "ONBUILD", "SHELL"].contains(&word.as_str()), "{instruction:?}");
        assert_eq!(told.get("empty_layer").is_none(), word == "COPY", "{instruction:?}");
    }
    assert_eq!(image["rootfs"]["diff_ids"], json!(["sha256:00", "sha256:11"]));
    assert_configured(&image, &base);
}

fn base() -> Map<String, Value> {
    let base = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin", "PORT=1"], "Labels": {"a": "1"}, "Volumes": {"/data": {}}, "OnBuild": null},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]}, "history": [{"created_by": "import"}],
    });
    base.as_object().expect("an object").clone()
}

/// That only what a template may set is not as it was, and all of it is of its type.
fn assert_configured(image: &Map<String, Value>, base: &Map<String, Value>) {
    for (key, value) in image {
        assert!(["config", "rootfs", "history"].contains(&key.as_str()) || base.get(key) == Some(value), "{key}");
    }
    let is_text_or_nothing = |value: &Value| value.is_string() || value.is_null();
    for (key, value) in image["config"].as_object().expect("an object") {
        let texts = || value.as_array().into_iter().flatten().all(Value::is_string);
        let is_sound = match key.as_str() {
            "Env" | "Entrypoint" | "Cmd" => (value.is_array() || value.is_null()) && texts(),
            "Labels" => value.as_object().is_some_and(|labels| labels.values().all(Value::is_string)),
            "ExposedPorts" => value.as_object().is_some_and(|ports| ports.values().all(|port| *port == json!({}))),
            "User" | "WorkingDir" | "StopSignal" => is_text_or_nothing(value),
            _ => Some(value) == base["config"].get(key),
        };
        assert!(is_sound, "{key}: {value}");
    }
    let names: Vec<&str> = image["config"]["Env"].as_array().into_iter().flatten().filter_map(name).collect();
    assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1), "{names:?}");
}

/// The name of a variable.
fn name(variable: &Value) -> Option<&str> {
    variable.as_str()?.split_once('=').map(|(name, _)| name)
}
