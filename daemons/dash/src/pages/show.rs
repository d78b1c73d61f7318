//! How things are written for people.

use dinp_common::api::agent::InstanceState;
use dinp_common::api::builder::{BuildStatus, BuildView};
use dinp_common::api::control::{InstanceView, NodeCondition};
use dinp_common::api::people::{AppState, AppView, DeploymentState, DeploymentView, EnvLeftOut, ReleaseView};
use dinp_common::api::{UnixMillis, unix_millis};
use dinp_common::model::ImageRef;

/// A word with its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Badge {
    /// The word.
    pub word: &'static str,
    /// Class of the style sheet.
    pub class: &'static str,
}

const fn badge(word: &'static str, class: &'static str) -> Badge {
    Badge { word, class }
}

/// A moment: how long ago, and exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Such as `3 min ago`.
    pub ago: String,
    /// Such as `2026-11-22 18:05:33 UTC`.
    pub exact: String,
}

/// A moment as people read it.
pub(crate) fn moment(at: UnixMillis) -> Moment {
    Moment { ago: format!("{} ago", span(unix_millis() - at)).replace("moments ago", "just now"), exact: exact(at) }
}

/// A time in UTC.
pub(crate) fn exact(at: UnixMillis) -> String {
    match jiff::Timestamp::from_millisecond(at) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => String::new(),
    }
}

/// A length of time by its two largest units.
pub(crate) fn span(millis: i64) -> String {
    let secs = millis.max(0) / 1000;
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes, secs) {
        (0, 0, 0, 0..=4) => "moments".to_owned(),
        (0, 0, 0, _) => format!("{secs} s"),
        (0, 0, _, _) => format!("{minutes} min"),
        (0, _, _, _) => format!("{hours} h {minutes} min"),
        (1..=6, ..) => format!("{days} d {hours} h"),
        _ => format!("{days} d"),
    }
}

/// A size.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{}.{} MiB", bytes / 1_048_576, bytes % 1_048_576 * 10 / 1_048_576),
    }
}

/// An image without its registry and with a short digest.
pub(crate) fn image(image: &ImageRef) -> String {
    let tag = image.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    match (image.tag(), image.digest()) {
        (None, Some(digest)) => format!("{}@{}", image.repository(), digest.get(7..19).unwrap_or_default()),
        _ => format!("{}{tag}", image.repository()),
    }
}

/// How a deployment is.
pub(crate) fn deployment(state: DeploymentState) -> Badge {
    match state {
        DeploymentState::Pending => badge("waiting", "busy"),
        DeploymentState::Rolling => badge("rolling out", "busy"),
        DeploymentState::Verifying => badge("verifying", "busy"),
        DeploymentState::Succeeded => badge("succeeded", "good"),
        DeploymentState::RollingBack => badge("rolling back", "warn"),
        DeploymentState::RolledBack => badge("rolled back", "bad"),
        DeploymentState::Cancelled => badge("cancelled", ""),
        DeploymentState::Superseded => badge("superseded", ""),
    }
}

/// How an app is, at a glance.
pub(crate) fn app(view: &AppView) -> Badge {
    let under_way = view.deployment.as_ref().is_some_and(|deployment| !deployment.state.is_final());
    let failed = view.deployment.as_ref().is_some_and(|deployment| deployment.state == DeploymentState::RolledBack);
    match (view.state, view.ready, view.instances) {
        (AppState::Stopped, ..) => badge("stopped", ""),
        _ if under_way => badge("deploying", "busy"),
        _ if view.release.is_none() && failed => badge("failed", "bad"),
        _ if view.release.is_none() => badge("not deployed", ""),
        (_, _, 0) => badge("scaled to 0", ""),
        (_, None, _) => badge("unknown", "warn"),
        (_, Some(0), _) => badge("down", "bad"),
        (_, Some(ready), wanted) if ready < wanted => badge("partly serving", "warn"),
        _ => badge("serving", "good"),
    }
}

/// How a build is.
pub(crate) fn build(status: BuildStatus) -> Badge {
    match status {
        BuildStatus::Running => badge("running", "busy"),
        BuildStatus::Succeeded => badge("succeeded", "good"),
        BuildStatus::Failed => badge("failed", "bad"),
        BuildStatus::Cancelled => badge("cancelled", ""),
    }
}

/// How a node is.
pub(crate) fn node(condition: NodeCondition) -> Badge {
    match condition {
        NodeCondition::Ready => badge("ready", "good"),
        NodeCondition::DockerDown => badge("Docker down", "bad"),
        NodeCondition::Suspect => badge("suspect", "warn"),
        NodeCondition::Lost => badge("lost", "bad"),
        NodeCondition::Unknown => badge("not heard of yet", "warn"),
    }
}

/// How an instance is.
pub(crate) fn instance(state: InstanceState) -> Badge {
    match state {
        InstanceState::Accepted => badge("accepted", "busy"),
        InstanceState::Pulling => badge("pulling image", "busy"),
        InstanceState::Starting => badge("starting", "busy"),
        InstanceState::Ready => badge("ready", "good"),
        InstanceState::Unfit => badge("unfit", "bad"),
        InstanceState::BackOff => badge("failing", "bad"),
        InstanceState::Stopping => badge("stopping", ""),
    }
}

/// A line of the instances' table.
pub(crate) struct InstanceRow {
    pub id: String,
    pub short: String,
    pub node: String,
    pub address: String,
    pub badge: Badge,
    pub routed: bool,
    pub since: Moment,
    pub span: String,
    pub restarts: u32,
    pub reason: String,
    pub node_doubtful: Option<&'static str>,
}

/// An instance as a line.
pub(crate) fn instance_row(view: &InstanceView) -> InstanceRow {
    let exit = view.exit_code.map(|code| format!("exit code {code}"));
    let reason: Vec<String> = exit.into_iter().chain((!view.reason.is_empty()).then(|| view.reason.clone())).collect();
    InstanceRow {
        id: view.instance.to_string(),
        short: view.instance.short().to_owned(),
        node: view.node.to_string(),
        address: match (&view.address, view.port) {
            (Some(address), Some(port)) => format!("{address}:{port}"),
            _ => "-".to_owned(),
        },
        badge: instance(view.state),
        routed: view.routed,
        since: moment(view.since),
        span: span(unix_millis() - view.since),
        restarts: view.restarts,
        reason: reason.join(": "),
        node_doubtful: (view.node_condition != NodeCondition::Ready).then(|| node(view.node_condition).word),
    }
}

/// A deployment as a line.
pub(crate) struct DeploymentRow {
    pub id: u64,
    pub release: u32,
    pub badge: Badge,
    pub reason: String,
    pub by: String,
    pub at: Moment,
    pub under_way: bool,
    pub failed: bool,
    pub cancelled: bool,
    pub output: Vec<String>,
}

/// A deployment as a line.
pub(crate) fn deployment_row(view: &DeploymentView) -> DeploymentRow {
    DeploymentRow {
        id: view.id,
        release: view.release_number,
        badge: deployment(view.state),
        reason: view.reason.clone(),
        by: view.created_by.clone(),
        at: moment(view.created_at),
        under_way: !view.state.is_final(),
        failed: view.state == DeploymentState::RolledBack,
        cancelled: view.state == DeploymentState::Cancelled,
        output: view.output.clone(),
    }
}

/// What an app's users get while its newest deployment goes on, and after one that came to nothing.
pub(crate) fn meanwhile(view: &AppView) -> String {
    let under_way = view.deployment.as_ref().is_some_and(|deployment| !deployment.state.is_final());
    match (&view.release, view.ready, under_way) {
        (None, _, true) => "Nothing is in force yet: the address answers as soon as an instance is ready.".to_owned(),
        (None, _, false) => "Nothing was in force before, so nothing runs.".to_owned(),
        (Some(release), Some(0), _) => {
            format!("Release #{} is in force, and none of its instances serves now.", release.number)
        }
        (Some(release), _, true) => {
            format!("Release #{} serves on; it goes only when the new one has proved itself.", release.number)
        }
        (Some(release), _, false) => format!("Release #{} is in force as before.", release.number),
    }
}

/// What the next release does not take along.
pub(crate) fn left_out(left_out: &EnvLeftOut) -> String {
    let EnvLeftOut { version, release, failed, set, unset } = left_out;
    let of = if *failed { "the failed release" } else { "release" };
    let set = set.iter().map(|name| format!("{name} set"));
    let changes: Vec<String> = set.chain(unset.iter().map(|name| format!("{name} taken away"))).collect();
    format!("Version {version} of {of} #{release} is not in force ({}).", changes.join(", "))
}

/// A release as a line.
pub(crate) struct ReleaseRow {
    pub number: u32,
    pub image: String,
    pub whole_image: String,
    pub memory_mb: u32,
    pub env_version: u32,
    pub by: String,
    pub at: Moment,
    pub note: String,
    pub in_force: bool,
    pub came_up: bool,
}

/// A release as a line.
pub(crate) fn release_row(view: &ReleaseView, in_force: Option<u64>) -> ReleaseRow {
    ReleaseRow {
        number: view.number,
        image: image(&view.image),
        whole_image: view.image.to_string(),
        memory_mb: view.memory_mb,
        env_version: view.env_version,
        by: view.created_by.clone(),
        at: moment(view.created_at),
        note: view.note.clone(),
        in_force: in_force == Some(view.id),
        came_up: view.came_up,
    }
}

/// A build as a line.
pub(crate) struct BuildRow {
    pub id: u64,
    pub app: String,
    pub version: String,
    pub runtime: String,
    pub badge: Badge,
    pub by: String,
    pub at: Moment,
    pub package: String,
    pub stage: String,
    pub reason: String,
    pub image: String,
    pub builder: String,
    pub attempt: u8,
    pub note: String,
    pub source: String,
    pub sha256: String,
    pub base: String,
    pub took: String,
    /// How long each stage took.
    pub stages: String,
    pub running: bool,
    pub succeeded: bool,
}

fn stage_time((stage, time): &(&str, std::time::Duration)) -> String {
    format!("{stage} {:.1} s", time.as_secs_f64())
}

/// A build as a line.
pub(crate) fn build_row(view: &BuildView) -> BuildRow {
    let bytes = view.package_bytes.map(size);
    let package = match (view.package_name.is_empty(), bytes) {
        (true, bytes) => bytes.unwrap_or_default(),
        (false, Some(bytes)) => format!("{} ({bytes})", view.package_name),
        (false, None) => view.package_name.clone(),
    };
    BuildRow {
        id: view.id,
        app: view.app.to_string(),
        version: view.version.clone(),
        runtime: view.runtime.clone(),
        badge: build(view.status),
        by: view.created_by.clone(),
        at: moment(view.started_at),
        package,
        stage: view.stage.clone(),
        reason: view.reason.clone(),
        image: view.image.clone().unwrap_or_default(),
        builder: view.builder.clone(),
        attempt: view.attempt,
        note: view.note.clone(),
        source: view.source.clone(),
        sha256: view.package_sha256.clone().unwrap_or_default(),
        base: view.base.clone(),
        stages: view.times().iter().map(stage_time).collect::<Vec<_>>().join(", "),
        took: span(view.finished_at.unwrap_or_else(unix_millis) - view.started_at),
        running: !view.status.is_final(),
        succeeded: view.status == BuildStatus::Succeeded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_images_read_well() {
        for (millis, text) in [
            (-5, "moments"),
            (4_999, "moments"),
            (59_000, "59 s"),
            (61_000, "1 min"),
            (3_725_000, "1 h 2 min"),
            (90_000_000, "1 d 1 h"),
            (864_000_000, "10 d"),
        ] {
            assert_eq!(span(millis), text);
        }
        assert_eq!(exact(1_700_000_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!((size(900), size(5_000), size(5_500_000)), ("900 B".into(), "4 KiB".into(), "5.2 MiB".into()));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(image(&format!("r:5000/anna/web:v1@{digest}").parse().unwrap()), "anna/web:v1");
        assert_eq!(image(&format!("r:5000/anna/web@{digest}").parse().unwrap()), "anna/web@aaaaaaaaaaaa");
    }
}
