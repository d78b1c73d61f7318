//! The fields of an app's settings, the same wherever a form makes a release.

use super::form::Form;
use crate::inherit::{DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_MB};
use crate::{invalid, refuse};
use dinp_common::api::people::{Deploy, EnvChange, ReleaseView, Setting};
use dinp_common::model::{HealthCheck, HealthKind, InvalidValue, Timing};
use dinp_common::problem::Problem;

/// A time that an app may have instead of the cluster's.
pub(super) struct TimeField {
    pub name: &'static str,
    pub what: &'static str,
    pub hint: &'static str,
    setting: Setting,
}

/// All of them, in the order of an instance's life.
pub(super) const TIMES: &[TimeField] = &[
    TimeField {
        name: "start_timeout_secs",
        what: "start timeout",
        hint: "An instance that is not ready so long after its start has failed to start. Default: the cluster's, 60 where nobody has set another.",
        setting: Setting::StartTimeoutSecs,
    },
    TimeField {
        name: "min_healthy_secs",
        what: "minimum healthy time",
        hint: "A new instance has proved itself when it was ready so long without an exit, a restart or a failed probe; \
               only then an old one leaves for it. Default: 5, and 2 with a health check.",
        setting: Setting::MinHealthySecs,
    },
    TimeField {
        name: "verify_secs",
        what: "verify time",
        hint: "When all new instances have proved themselves, they are watched so much longer; then the old ones stop. \
               Default: the cluster's, 5 where nobody has set another.",
        setting: Setting::VerifySecs,
    },
    TimeField {
        name: "drain_timeout_secs",
        what: "drain timeout",
        hint: "Longest wait for the requests that an instance still answers before it is stopped. Default: the cluster's, 30 where nobody has set another.",
        setting: Setting::DrainTimeoutSecs,
    },
    TimeField {
        name: "stop_grace_secs",
        what: "stop grace",
        hint: "Time from SIGTERM, which asks an instance to stop, to SIGKILL, which ends it. Default: the cluster's, 10 where nobody has set another.",
        setting: Setting::StopGraceSecs,
    },
];

/// The fields as the settings are now.
pub(super) fn fields(instances: u32, settings: Option<&ReleaseView>) -> Form {
    let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
    let health = settings.and_then(|release| release.health.as_ref());
    let kind = health.map_or(HealthKind::Http, |health| health.kind);
    let form = Form::of([
        ("instances", instances.to_string()),
        ("memory_mb", settings.map_or(DEFAULT_MEMORY_MB, |release| release.memory_mb).to_string()),
        ("cpu_millis", settings.map_or(DEFAULT_CPU_MILLIS, |release| release.cpu_millis).to_string()),
        ("cpu_limit_millis", number(settings.and_then(|release| release.cpu_limit_millis))),
        ("health_kind", if kind == HealthKind::Tcp { "tcp" } else { "http" }.to_owned()),
        ("health", health.map(|health| health.path.clone()).unwrap_or_default()),
        ("health_host", health.and_then(|health| health.host.clone()).unwrap_or_default()),
        ("command", settings.map(command).unwrap_or_default()),
        ("note", String::new()),
    ]);
    let mut timing = settings.map(|release| release.timing).unwrap_or_default();
    TIMES.iter().fold(form, |form, time| {
        let secs = time.setting.time(&mut timing).and_then(|secs| *secs);
        form.and(time.name, number(secs))
    })
}

/// The command of a release, one word a line.
pub(super) fn command(release: &ReleaseView) -> String {
    release.command.as_ref().map(|words| words.join("\n")).unwrap_or_default()
}

/// What a form of these fields asks for: a field that is empty asks for the default.
pub(super) fn wish(form: &Form, settings: Option<&ReleaseView>) -> Result<Deploy, Problem> {
    let mut timing = Timing::default();
    let mut reset = Vec::new();
    for time in TIMES {
        let secs = form.number(time.name, time.what)?;
        if secs.is_none() {
            reset.push(time.setting);
        }
        if let Some(place) = time.setting.time(&mut timing) {
            *place = secs;
        }
        // A field has its error beside it.
        timing.check().map_err(|error| invalid(time.name, &error))?;
    }
    let cpu_limit_millis = form.number("cpu_limit_millis", "cpu limit")?;
    if cpu_limit_millis.is_none() {
        reset.push(Setting::CpuLimitMillis);
    }
    let words = form.value("command").lines().map(str::trim_end).filter(|word| !word.is_empty());
    Ok(Deploy {
        memory_mb: form.number("memory_mb", "memory")?,
        cpu_millis: form.number("cpu_millis", "cpu")?,
        cpu_limit_millis,
        instances: form.number("instances", "instance count")?,
        command: Some(words.map(str::to_owned).collect()),
        health: Some(health(form, settings.and_then(|release| release.health.as_ref()))?),
        timing,
        reset,
        env: EnvChange { keep: form.ticked("keep"), ..EnvChange::default() },
        note: form.value("note").trim().to_owned(),
        ..Deploy::default()
    })
}

/// The health check that a form asks for; it keeps the intervals of the one before.
fn health(form: &Form, before: Option<&HealthCheck>) -> Result<HealthCheck, Problem> {
    let (path, host) = (form.value("health").trim().to_owned(), form.text("health_host"));
    let kind = if form.value("health_kind") == "tcp" { HealthKind::Tcp } else { HealthKind::Http };
    if kind == HealthKind::Tcp && !(path.is_empty() && host.is_none()) {
        let error = InvalidValue::new("health check", "tcp", "a check by connection has neither path nor host");
        return Err(invalid("health_kind", &error));
    }
    if kind == HealthKind::Http && path.is_empty() && host.is_some() {
        return Err(refuse("health_host", "invalid-value", "a host needs a path to ask for"));
    }
    let before = before.cloned().unwrap_or_else(|| HealthCheck::new(""));
    Ok(HealthCheck { kind, path, host, ..before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_form_shows_is_what_it_asks_for() {
        let timing = Timing { start_timeout_secs: Some(90), ..Timing::default() };
        let health = HealthCheck { host: Some("shop.example.org".into()), interval_secs: 9, ..HealthCheck::new("/up") };
        let release: ReleaseView = serde_json::from_value(serde_json::json!({
            "id": 1, "number": 1, "image": "control:5000/anna/web:v1", "command": ["run", "--fast"], "memory_mb": 512,
            "cpu_millis": 200, "cpu_limit_millis": 400, "health": health, "timing": timing, "env_version": 0,
            "instances": 2, "created_by": "anna", "created_at": 0,
        }))
        .unwrap();
        let same = wish(&fields(3, Some(&release)), Some(&release)).unwrap();
        assert_eq!((same.memory_mb, same.cpu_millis, same.cpu_limit_millis), (Some(512), Some(200), Some(400)));
        assert_eq!((same.instances, same.command, same.health), (Some(3), release.command, Some(health)));
        assert_eq!(same.timing, timing);
        assert!(!same.reset.contains(&Setting::StartTimeoutSecs) && same.reset.contains(&Setting::VerifySecs));
        let first = wish(&fields(1, None), None).unwrap();
        assert_eq!((first.memory_mb, first.reset.len()), (Some(DEFAULT_MEMORY_MB), TIMES.len() + 1));
        assert!(first.health.unwrap().is_none());
    }

    #[test]
    fn an_error_names_its_field() {
        for (field, value, rule) in [
            ("verify_secs", "90000", "verify time \"90000\" is not valid: it must be from 0 to 3600 seconds"),
            ("stop_grace_secs", "soon", "stop grace \"soon\" is not valid: it must be a whole number"),
            ("health_host", "a.example", "a host needs a path to ask for"),
        ] {
            let problem = wish(&fields(1, None).and(field, value.to_owned()), None).unwrap_err();
            assert_eq!((problem.text("field"), problem.detail.as_str()), (Some(field), rule));
        }
        let both = fields(1, None).and("health_kind", "tcp".into()).and("health", "/".into());
        assert_eq!(wish(&both, None).unwrap_err().text("field"), Some("health_kind"));
    }
}
