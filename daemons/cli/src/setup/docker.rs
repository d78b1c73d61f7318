//! Steps that are about the Docker Engine on this machine.
//!
//! `daemon.json` belongs to the operator: our keys are merged into it and all others stay. What we need can be reloaded,
//! so that no container notices. `userland-proxy` is left as it is: traffic from other machines does not pass it.

use super::error::SetupError;
use super::files::Program;
use super::step::{State, Step, Steps, Task};
use super::system::{self, Access, run};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Duration;

const SETTINGS: &str = "/etc/docker/daemon.json";
const UNIT: &str = "docker.service";

/// What has to be installed: the engine, and the command that setup itself uses, which since Debian 13 is in a package
/// of its own.
pub fn programs() -> [Program; 2] {
    let client = if system::find_program("dockerd").is_some() { "docker-cli" } else { "docker.io" };
    [("the Docker Engine", &["dockerd"], "docker.io"), ("the docker command", &["docker"], client)]
}

/// Settings, and an engine that has them; `insecure` are registries that speak plain HTTP.
pub fn steps(insecure: Vec<String>) -> Steps {
    vec![Box::new(Settings { insecure: insecure.clone() }), Box::new(Engine { insecure })]
}

/// Our keys in an existing file.
fn merged(old: &str, insecure: &[String]) -> Result<Map<String, Value>, SetupError> {
    let wrong = |what: String| SetupError::Refused(format!("{SETTINGS} {what}: put it right by hand"));
    let mut settings: Map<String, Value> = match old.trim() {
        "" => Map::new(),
        text => serde_json::from_str(text).map_err(|error| wrong(format!("is not a JSON object ({error})")))?,
    };
    // Containers go on while the engine is restarted or upgraded.
    settings.insert("live-restore".into(), json!(true));
    for registry in insecure {
        let list = settings.entry("insecure-registries").or_insert_with(|| json!([]));
        let list = list.as_array_mut().ok_or_else(|| wrong("has an \"insecure-registries\" that is no list".into()))?;
        if !list.iter().any(|entry| entry == registry) {
            list.push(json!(registry));
        }
    }
    Ok(settings)
}

struct Settings {
    insecure: Vec<String>,
}

impl Settings {
    /// The file as it is, and as it should be.
    fn old_and_new(&self) -> Result<(String, Map<String, Value>), SetupError> {
        let old = system::read(Path::new(SETTINGS))?.unwrap_or_default();
        let new = merged(&old, &self.insecure)?;
        Ok((old, new))
    }
}

impl Step for Settings {
    fn name(&self) -> String {
        SETTINGS.into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let (old, new) = self.old_and_new()?;
            let same = serde_json::from_str::<Map<String, Value>>(&old).is_ok_and(|old| old == new);
            Ok(if same { State::Ok } else { State::due("live-restore, insecure-registries") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let (_, new) = self.old_and_new()?;
            let text = serde_json::to_string_pretty(&new).unwrap_or_default() + "\n";
            system::write(Path::new(SETTINGS), &text, Access::PUBLIC)
        })
    }
}

/// The engine runs, and says itself that the settings are in force.
struct Engine {
    insecure: Vec<String>,
}

impl Engine {
    async fn missing(&self) -> Result<Option<&'static str>, SetupError> {
        let info = run("docker", &["info", "--format", "{{json .}}"], None).await?;
        let info: Value = serde_json::from_str(&info)
            .map_err(|error| SetupError::Refused(format!("docker info answers with something else: {error}")))?;
        if info["LiveRestoreEnabled"] != json!(true) {
            return Ok(Some("live-restore"));
        }
        let known = &info["RegistryConfig"]["IndexConfigs"];
        let lacks = self.insecure.iter().any(|registry| known[registry]["Secure"] != json!(false));
        Ok(lacks.then_some("insecure-registries"))
    }

    async fn in_force(&self) -> Result<(), SetupError> {
        match self.missing().await? {
            None => Ok(()),
            Some(key) => Err(SetupError::Refused(format!("the Docker Engine does not take over {key} of {SETTINGS}"))),
        }
    }
}

impl Step for Engine {
    fn name(&self) -> String {
        UNIT.into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            if !system::succeeds("systemctl", &["is-active", "--quiet", UNIT], None).await {
                return Ok(State::due("start"));
            }
            if !system::succeeds("systemctl", &["is-enabled", "--quiet", UNIT], None).await {
                return Ok(State::due("enable"));
            }
            Ok(self.missing().await?.map_or(State::Ok, |key| State::due(format!("reload: {key}"))))
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            run("systemctl", &["enable", "--quiet", UNIT], None).await?;
            run("systemctl", &["reset-failed", UNIT], None).await.ok();
            run("systemctl", &["reload-or-restart", UNIT], None).await?;
            system::retry(Duration::from_secs(30), async || self.in_force().await).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_stay() {
        let old = r#"{"log-opts": {"max-size": "1m"}, "insecure-registries": ["other:1"]}"#;
        let ours = ["10.0.0.1:5000".to_owned()];
        let new = merged(old, &ours).unwrap();
        assert_eq!(new["log-opts"]["max-size"], "1m");
        assert_eq!(new["insecure-registries"], json!(["other:1", "10.0.0.1:5000"]));
        assert_eq!(new["live-restore"], json!(true));
        let again = merged(&serde_json::to_string(&new).unwrap(), &ours).unwrap();
        assert_eq!(again, new);
    }

    #[test]
    fn a_broken_file_is_not_overwritten() {
        for broken in ["{", "[]", r#"{"insecure-registries": "x"}"#] {
            let error = merged(broken, &["a:1".to_owned()]).unwrap_err().to_string();
            assert!(error.contains("/etc/docker/daemon.json"), "{error}");
        }
        assert!(merged("", &[]).is_ok());
    }
}
