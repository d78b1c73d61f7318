//! What a Dockerfile without RUN says, as one layer and changes of the image's configuration.
//!
//! The rules are those of the Docker Engine's own builder ("Dockerfile reference"; tests hold the two beside each other).
//! Whatever is not understood exactly is left to the Engine, with a reason.

use super::LeftToEngine;
use serde_json::{Map, Value, json};

/// The one directory of the context that the layer is made of.
const SOURCE: [&str; 2] = ["app", "app/"];

/// What is to be done to a base image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where the package goes: absolute, without a slash at its end.
    pub(crate) destination: String,
    /// What must be a directory when that is done.
    pub(crate) workdirs: Vec<String>,
    steps: Vec<Step>,
}

/// An instruction, and how the history tells of it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: String,
    change: Change,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// The package, in this directory.
    Layer(String),
    Label(Vec<(String, String)>),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    User(String),
    Workdir(String),
    StopSignal(String),
    Entrypoint(Vec<String>),
    Cmd(Vec<String>),
}

impl Plan {
    /// Reads a rendered template.
    pub(crate) fn parse(text: &str) -> Result<Self, LeftToEngine> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let from = lines.next().unwrap_or_default();
        if !from.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("FROM")) {
            return Err(LeftToEngine::new("the Dockerfile does not begin with FROM"));
        }
        let steps: Vec<Step> = lines.map(Step::parse).collect::<Result<_, _>>()?;
        let mut destinations = steps.iter().filter_map(|step| match &step.change {
            Change::Layer(destination) => Some(destination.clone()),
            _ => None,
        });
        let destination = match (destinations.next(), destinations.next()) {
            (Some(destination), None) => destination,
            _ => return Err(LeftToEngine::new("it does not have one COPY")),
        };
        let workdirs = steps.iter().filter_map(|step| match &step.change {
            Change::Workdir(path) => Some(path.clone()),
            _ => None,
        });
        Ok(Self { destination, workdirs: workdirs.collect(), steps })
    }

    /// The configuration of the image on this base, whose new layer has this digest unpacked.
    pub(crate) fn apply(&self, base: &Map<String, Value>, diff_id: &str) -> Map<String, Value> {
        // Of what the Engine writes about the making of an image nothing is taken over: it is of the base.
        let kept = ["architecture", "os", "os.version", "variant", "author", "created", "config", "rootfs", "history"];
        let mut image: Map<String, Value> =
            base.iter().filter(|(key, _)| kept.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
        let created = image.get("created").cloned().unwrap_or(Value::Null);
        let config = object(&mut image, "config");
        let mut has_cmd = false;
        for Step { change, .. } in &self.steps {
            change.apply(config, &mut has_cmd);
        }
        list(object(&mut image, "rootfs"), "diff_ids").push(diff_id.into());
        let history = list(&mut image, "history");
        for Step { line, change } in &self.steps {
            let mut entry = json!({"created": created, "created_by": line});
            if !matches!(change, Change::Layer(_)) {
                entry["empty_layer"] = true.into();
            }
            history.push(entry);
        }
        image
    }
}

impl Step {
    fn parse(line: &str) -> Result<Self, LeftToEngine> {
        if let Some(sign) = line.chars().find(|sign| "\\$`'".contains(*sign)) {
            return Err(LeftToEngine::new(format!("a line holds {sign}, which can mean many things")));
        }
        if line.contains("<<") {
            return Err(LeftToEngine::new("it has a document within"));
        }
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let one_word = |what: &str| match rest.split_whitespace().collect::<Vec<_>>()[..] {
            [word] if !word.contains('"') => Ok(word.to_owned()),
            _ => Err(LeftToEngine::new(format!("{what} is not followed by one word"))),
        };
        let change = match word.to_ascii_uppercase().as_str() {
            "COPY" => match rest.split_whitespace().collect::<Vec<_>>()[..] {
                [source, directory] if SOURCE.contains(&source) && !rest.contains('"') => {
                    Change::Layer(absolute(directory)?)
                }
                _ => return Err(LeftToEngine::new("a COPY is not COPY app/ and one directory")),
            },
            "LABEL" => Change::Label(pairs(rest)?),
            "ENV" => Change::Env(pairs(rest)?),
            "EXPOSE" => Change::Expose(rest.split_whitespace().map(port).collect::<Result<_, _>>()?),
            "USER" => Change::User(one_word("USER")?),
            "WORKDIR" => Change::Workdir(absolute(&one_word("WORKDIR")?)?),
            "STOPSIGNAL" => Change::StopSignal(one_word("STOPSIGNAL")?),
            "ENTRYPOINT" => Change::Entrypoint(words(rest)?),
            "CMD" => Change::Cmd(words(rest)?),
            other => return Err(LeftToEngine::new(format!("it has {other}"))),
        };
        Ok(Self { line: line.to_owned(), change })
    }
}

impl Change {
    fn apply(&self, config: &mut Map<String, Value>, has_cmd: &mut bool) {
        let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
        match self {
            Self::Layer(_) => {}
            Self::Label(pairs) => {
                let labels = object(config, "Labels");
                labels.extend(pairs.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
            }
            Self::Env(pairs) => pairs.iter().for_each(|(name, value)| set_variable(list(config, "Env"), name, value)),
            Self::Expose(ports) => {
                object(config, "ExposedPorts").extend(ports.iter().map(|port| (port.clone(), json!({}))));
            }
            Self::User(user) => set("User", user.as_str().into()),
            Self::Workdir(path) => set("WorkingDir", path.as_str().into()),
            Self::StopSignal(signal) => set("StopSignal", signal.as_str().into()),
            Self::Entrypoint(command) => {
                set("Entrypoint", json!(command));
                // What the base would have started is no argument of another program.
                if !*has_cmd {
                    set("Cmd", Value::Null);
                }
            }
            Self::Cmd(command) => {
                set("Cmd", json!(command));
                *has_cmd = true;
            }
        }
    }
}

/// Gives a variable its value, in the place where it has stood.
fn set_variable(variables: &mut Vec<Value>, name: &str, value: &str) {
    let text = Value::from(format!("{name}={value}"));
    let is_it =
        |have: &&mut Value| have.as_str().and_then(|have| have.split_once('=')).is_some_and(|(have, _)| have == name);
    match variables.iter_mut().find(is_it) {
        Some(have) => *have = text,
        None => variables.push(text),
    }
}

/// The object under a key, made where there is none.
fn object<'a>(of: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = of.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it is an object now")
}

/// The list under a key, made where there is none.
fn list<'a>(of: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = of.entry(key).or_insert(Value::Null);
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it is a list now")
}

/// An absolute path without doubled slashes and one at its end.
fn absolute(path: &str) -> Result<String, LeftToEngine> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let is_plain = |part: &&str| !matches!(*part, "." | "..") && !part.contains(['*', '?', '[']);
    if !path.starts_with('/') || parts.is_empty() || !parts.iter().all(is_plain) {
        return Err(LeftToEngine::new(format!("{path} is not the absolute path of a directory")));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// `a=b c="d e"`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, LeftToEngine> {
    let odd = || LeftToEngine::new("a LABEL or ENV is not of the form name=value");
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(odd)?;
        if name.is_empty() || name.contains(|sign: char| sign.is_whitespace() || sign == '"') {
            return Err(odd());
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or_else(odd)?,
            None => after.split_at(after.find(char::is_whitespace).unwrap_or(after.len())),
        };
        if value.contains('"') || !(after.is_empty() || after.starts_with(char::is_whitespace)) {
            return Err(odd());
        }
        pairs.push((name.to_owned(), value.to_owned()));
        rest = after.trim_start();
    }
    if pairs.is_empty() { Err(odd()) } else { Ok(pairs) }
}

/// `8080` or `53/udp`, with its protocol.
fn port(word: &str) -> Result<String, LeftToEngine> {
    let (number, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let is_number = number.parse::<u16>().is_ok_and(|number| number > 0);
    if !is_number || !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(LeftToEngine::new(format!("EXPOSE {word} is not one port")));
    }
    Ok(format!("{number}/{protocol}"))
}

/// A command as a list in JSON.
fn words(text: &str) -> Result<Vec<String>, LeftToEngine> {
    serde_json::from_str(text).map_err(|_| LeftToEngine::new("a command is not a list of words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Map<String, Value> {
        let base = json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z", "container": "0123",
            "docker_version": "20.10", "container_config": {"Cmd": ["x"]},
            "config": {"Env": ["PATH=/bin", "PORT=1"], "Cmd": ["old"], "User": "root", "Labels": {"a": "1"}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]}, "history": [{"created_by": "import"}],
        });
        base.as_object().unwrap().clone()
    }

    fn config(instructions: &str) -> Value {
        let plan = Plan::parse(&format!("FROM b\nCOPY app/ /app/\n{instructions}\n")).unwrap();
        Value::from(plan.apply(&base(), "sha256:11"))["config"].clone()
    }

    #[test]
    fn a_runtime_s_template_is_one_layer_and_a_configuration() {
        let text =
            include_str!("../../../../etc/builder.d/package.Dockerfile").replace("{{base}}", "r:5000/b@sha256:0");
        let plan = Plan::parse(&text.replace("{{app_dir}}", "/srv//app")).unwrap();
        assert_eq!((plan.destination.as_str(), &plan.workdirs[..]), ("/srv/app", &["/srv/app".to_owned()][..]));
        let image = Value::from(plan.apply(&base(), "sha256:11"));
        assert_eq!(image["rootfs"], json!({"type": "layers", "diff_ids": ["sha256:00", "sha256:11"]}));
        assert_eq!(image["config"]["Env"], json!(["PATH=/bin", "PORT=8080"]), "in its place");
        assert_eq!(image["config"]["User"], "1000:1000");
        assert_eq!(image["config"]["ExposedPorts"], json!({"8080/tcp": {}}));
        assert_eq!(image["created"], "2026-01-02T03:04:05Z");
        assert!(image.get("container").is_none() && image.get("container_config").is_none());
        let layers = image["history"].as_array().unwrap().iter().filter(|entry| entry.get("empty_layer").is_none());
        assert_eq!(layers.count(), 2, "as many as there are layers");
    }

    #[test]
    fn instructions_mean_what_they_mean_to_the_engine() {
        assert_eq!(config("ENTRYPOINT [\"/e\"]")["Cmd"], Value::Null, "the base's arguments are not its own");
        assert_eq!(config("CMD [\"c\"]\nENTRYPOINT [\"/e\"]")["Cmd"], json!(["c"]));
        assert_eq!(config("ENTRYPOINT [\"/e\"]\nCMD [\"c\"]")["Cmd"], json!(["c"]));
        assert_eq!(config("LABEL b=\"2 3\" c=4")["Labels"], json!({"a": "1", "b": "2 3", "c": "4"}));
        assert_eq!(config("env X=1 Y=\"2 3\"")["Env"], json!(["PATH=/bin", "PORT=1", "X=1", "Y=2 3"]));
        assert_eq!(config("EXPOSE 80 53/udp")["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(config("STOPSIGNAL SIGQUIT\n# no\n\nUSER www")["StopSignal"], "SIGQUIT");
    }

    #[test]
    fn what_is_not_understood_exactly_is_left_to_the_engine() {
        for instructions in [
            "RUN true",
            "ADD app/ /x",
            "COPY app/ /again/",
            "COPY --chown=1 app/ /x/",
            "ENV A=$B",
            "ENV A b",
            "ENV A=b\\ c",
            "ENV A='b'",
            "LABEL =x",
            "LABEL a=\"b",
            "LABEL a=b\"c",
            "LABEL",
            "EXPOSE 80-90",
            "EXPOSE 0",
            "CMD echo",
            "ENTRYPOINT [\"a\", 1]",
            "WORKDIR sub",
            "WORKDIR /a/../b",
            "USER a b",
            "VOLUME /data",
            "HEALTHCHECK NONE",
            "ONBUILD RUN true",
            "SHELL [\"/bin/bash\"]",
            "FROM other",
            "CMD [\"a\"] <<EOF",
        ] {
            assert!(Plan::parse(&format!("FROM b\nCOPY app/ /app/\n{instructions}\n")).is_err(), "{instructions}");
        }
        for text in [
            "",
            "FROM b",
            "COPY app/ /app/",
            "FROM b\nCOPY Dockerfile /x/",
            "FROM b\nCOPY app/ rel/",
            "FROM b\nCOPY app/ /",
        ] {
            assert!(Plan::parse(text).is_err(), "{text:?}");
        }
    }
}
