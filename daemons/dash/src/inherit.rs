//! What a new release takes over from those before it.
//!
//! What a person has set once is kept until it is changed, whatever failed in between; and what failed is not tried again
//! because something else is changed. So a new release has two parents, which mostly are the same release:
//!
//! * **Settings** (memory, CPU, health check, times) come from the release that was asked for last, whether it came up
//!   or not. Who brings back an older release brings back its settings, too, unless that fails.
//! * **The image**, where none is named, is that of the release on its way, so that a change does not undo it; else that
//!   of the release in force. Without either there is nothing to deploy.
//! * **The command** is a setting where an image is named. Else it goes with the image: one that was given together with
//!   an image that failed may mean nothing to the image in force.
//! * **The environment** is that of [`crate::environment::standing`].

use dinp_common::api::people::DeploymentState::{Pending, Rolling, Verifying};
use dinp_common::api::people::{Deploy, DeploymentView, ReleaseView, Setting};
use dinp_common::model::{HealthCheck, ImageRef, Timing};
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::store::{deployment, release};
use mysql_async::prelude::Queryable;

/// Memory of an instance where nobody says.
pub(crate) const DEFAULT_MEMORY_MB: u32 = 256;
/// CPU share where nobody says.
pub(crate) const DEFAULT_CPU_MILLIS: u32 = 100;

/// What a release is made of, besides environment and count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub image: ImageRef,
    pub command: Option<Vec<String>>,
    pub memory_mb: u32,
    pub cpu_millis: u32,
    pub cpu_limit_millis: Option<u32>,
    pub health: Option<HealthCheck>,
    pub timing: Timing,
}

/// The releases that a new one starts from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parents {
    /// The one whose settings are kept.
    pub settings: Option<ReleaseView>,
    /// The one whose image is deployed where none is named.
    pub running: Option<ReleaseView>,
}

impl Parents {
    /// Those of an app.
    pub(crate) async fn of<Q: Queryable>(conn: &mut Q, row: &AppRow) -> Result<Self, Problem> {
        let settings = deployment::asked_for_last(conn, &row.name).await?;
        let running = running_id(conn, row).await?;
        let ids: Vec<u64> = settings.into_iter().chain(running).collect();
        let releases = release::by_ids(conn, &ids).await?;
        let find = |id: Option<u64>| releases.iter().find(|release| Some(release.id) == id).cloned();
        Ok(Self { settings: find(settings), running: find(running) })
    }

    /// What was asked for, laid over them; `image` is the one that was named. Nothing where there is no image at all.
    pub(crate) fn spec(&self, image: Option<ImageRef>, wish: &Deploy) -> Option<Spec> {
        let settings = self.settings.as_ref();
        let command_of = if image.is_some() { settings } else { self.running.as_ref() };
        let command = match &wish.command {
            Some(command) => Some(command.clone()).filter(|command| !command.is_empty()),
            None => command_of.and_then(|release| release.command.clone()),
        };
        let health = match &wish.health {
            Some(health) => Some(health.clone()).filter(|health| !health.is_none()),
            None => settings.and_then(|release| release.health.clone()),
        };
        let kept = |setting, value: Option<u32>| value.filter(|_| !wish.reset.contains(&setting));
        let limit = kept(Setting::CpuLimitMillis, settings.and_then(|release| release.cpu_limit_millis));
        let memory = wish.memory_mb.or(settings.map(|release| release.memory_mb));
        let cpu = wish.cpu_millis.or(settings.map(|release| release.cpu_millis));
        Some(Spec {
            image: image.or_else(|| self.running.as_ref().map(|release| release.image.clone()))?,
            command,
            memory_mb: memory.unwrap_or(DEFAULT_MEMORY_MB),
            cpu_millis: cpu.unwrap_or(DEFAULT_CPU_MILLIS),
            cpu_limit_millis: wish.cpu_limit_millis.or(limit),
            health,
            timing: timing(settings.map(|release| release.timing).unwrap_or_default(), wish),
        })
    }
}

/// The times that were set before, with what is asked for now.
fn timing(mut before: Timing, wish: &Deploy) -> Timing {
    for setting in &wish.reset {
        if let Some(secs) = setting.time(&mut before) {
            *secs = None;
        }
    }
    before.overlaid(wish.timing)
}

/// The release on its way; where there is none, the one in force.
pub(crate) async fn running_id<Q: Queryable>(conn: &mut Q, row: &AppRow) -> Result<Option<u64>, Problem> {
    let newest = deployment::newest(conn, &[&row.name]).await?.pop();
    Ok(newest.filter(is_on_its_way).map(|newest| newest.release_id).or(row.release_id))
}

fn is_on_its_way(view: &DeploymentView) -> bool {
    matches!(view.state, Pending | Rolling | Verifying)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tag: &str) -> ImageRef {
        format!("control:5000/anna/web:{tag}").parse().unwrap()
    }

    fn release(tag: &str, command: &str) -> ReleaseView {
        ReleaseView {
            id: 7,
            number: 3,
            image: image(tag),
            command: Some(vec![command.into()]),
            memory_mb: 512,
            cpu_millis: 200,
            cpu_limit_millis: Some(400),
            health: Some(HealthCheck::new("/health")),
            timing: Timing { start_timeout_secs: Some(90), verify_secs: Some(7), ..Timing::default() },
            env_version: 1,
            instances: 2,
            created_by: "anna".into(),
            created_at: 0,
            note: String::new(),
            came_up: true,
        }
    }

    fn both(release: ReleaseView) -> Parents {
        Parents { settings: Some(release.clone()), running: Some(release) }
    }

    #[test]
    fn what_is_absent_is_as_before_and_what_is_empty_goes() {
        let base = release("v1", "run");
        let same = both(base.clone()).spec(None, &Deploy::default()).unwrap();
        assert_eq!((same.memory_mb, same.cpu_millis, same.cpu_limit_millis), (512, 200, Some(400)));
        assert_eq!((same.command, same.health, same.timing), (base.command.clone(), base.health.clone(), base.timing));
        let first = Parents::default().spec(Some(image("v1")), &Deploy::default()).unwrap();
        assert_eq!((first.memory_mb, first.cpu_millis, first.command, first.health), (256, 100, None, None));
        let health = HealthCheck { path: String::new(), ..HealthCheck::new("/") };
        let wish = Deploy {
            command: Some(vec![]),
            health: Some(health),
            memory_mb: Some(128),
            reset: vec![Setting::CpuLimitMillis, Setting::StartTimeoutSecs],
            ..Deploy::default()
        };
        let spec = both(base).spec(None, &wish).unwrap();
        assert_eq!((spec.command, spec.health, spec.memory_mb, spec.cpu_limit_millis), (None, None, 128, None));
        assert_eq!(spec.timing, Timing { verify_secs: Some(7), ..Timing::default() });
    }

    #[test]
    fn a_first_release_that_failed_keeps_its_settings_for_the_next_image() {
        let parents = Parents { settings: Some(release("v1", "run")), running: None };
        let spec = parents.spec(Some(image("v2")), &Deploy::default()).unwrap();
        assert_eq!(spec.health, Some(HealthCheck::new("/health")));
        assert_eq!((spec.image, spec.command), (image("v2"), Some(vec!["run".into()])));
        assert_eq!(parents.spec(None, &Deploy::default()), None, "there is no image that has ever come up");
    }

    #[test]
    fn another_image_that_failed_is_not_deployed_by_a_change_of_something_else() {
        let parents = Parents { settings: Some(release("bad", "bad")), running: Some(release("good", "good")) };
        let spec = parents.spec(None, &Deploy::default()).unwrap();
        assert_eq!((spec.image, spec.command), (image("good"), Some(vec!["good".into()])));
        let spec = parents.spec(Some(image("next")), &Deploy::default()).unwrap();
        assert_eq!((spec.image, spec.command), (image("next"), Some(vec!["bad".into()])));
    }
}
