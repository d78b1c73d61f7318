//! Releases and deployments: what is to run, and how it came about.

use crate::apps::{object, within};
use crate::{Caller, Dash, invalid, record, refuse};
use dinp_common::api::builder::BuildStatus;
use dinp_common::api::people::{Deploy, DeploymentView, ReleaseView, Rollback};
use dinp_common::model::{HealthCheck, ImageRef, InvalidValue, Timing};
use dinp_common::problem::Problem;
use dinp_common::store::app::{self, AppRow};
use dinp_common::store::release::NewRelease;
use dinp_common::store::{Change, build, deployment, domain, release};
use mysql_async::prelude::Queryable;

/// Memory of an instance where nobody says.
const DEFAULT_MEMORY_MB: u32 = 256;
/// CPU share where nobody says.
const DEFAULT_CPU_MILLIS: u32 = 100;
/// Longest note.
const MAX_NOTE: usize = 1000;
/// Most words of a command, and most bytes of all of them.
const MAX_COMMAND: (usize, usize) = (128, 16 * 1024);

/// What a release is made of, besides environment and count.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec {
    image: ImageRef,
    command: Option<Vec<String>>,
    memory_mb: u32,
    cpu_millis: u32,
    cpu_limit_millis: Option<u32>,
    health: Option<HealthCheck>,
    timing: Timing,
}

/// What was asked for, laid over the release that it starts from. The image is resolved elsewhere.
fn lay_over(image: ImageRef, wish: &Deploy, base: Option<&ReleaseView>) -> Spec {
    let command = match &wish.command {
        Some(command) if command.is_empty() => None,
        Some(command) => Some(command.clone()),
        None => base.and_then(|base| base.command.clone()),
    };
    let health = match &wish.health {
        Some(health) if health.is_none() => None,
        Some(health) => Some(health.clone()),
        None => base.and_then(|base| base.health.clone()),
    };
    Spec {
        image,
        command,
        memory_mb: wish.memory_mb.or(base.map(|base| base.memory_mb)).unwrap_or(DEFAULT_MEMORY_MB),
        cpu_millis: wish.cpu_millis.or(base.map(|base| base.cpu_millis)).unwrap_or(DEFAULT_CPU_MILLIS),
        cpu_limit_millis: wish.cpu_limit_millis.or(base.and_then(|base| base.cpu_limit_millis)),
        health,
        timing: base.map(|base| base.timing).unwrap_or_default().overlaid(wish.timing),
    }
}

fn check_command(command: &[String]) -> Result<(), InvalidValue> {
    let (words, bytes) = MAX_COMMAND;
    let total: usize = command.iter().map(String::len).sum();
    if command.len() > words || total > bytes {
        let rule = format!("it must have at most {words} words and {bytes} bytes");
        return Err(InvalidValue::new("command", command.join(" "), rule));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(InvalidValue::new("command", command.join(" "), "it must not hold NUL characters"));
    }
    Ok(())
}

impl Dash {
    /// Checks what needs no other daemon.
    fn check_deploy(&self, wish: &Deploy) -> Result<(), Problem> {
        let limits = &self.config.limits;
        if wish.image.is_some() && wish.build.is_some() {
            return Err(refuse("image", "image-or-build", "name an image or a build, not both"));
        }
        if let Some(memory) = wish.memory_mb {
            limits.check_memory(memory).map_err(|error| invalid("memory_mb", &error))?;
        }
        if let Some(cpu) = wish.cpu_millis {
            limits.check_cpu(cpu).map_err(|error| invalid("cpu_millis", &error))?;
        }
        if let Some(cpu) = wish.cpu_limit_millis {
            limits.check_cpu(cpu).map_err(|error| invalid("cpu_limit_millis", &error))?;
        }
        if let Some(instances) = wish.instances {
            limits.check_instances(instances).map_err(|error| invalid("instances", &error))?;
        }
        if let Some(command) = &wish.command {
            check_command(command).map_err(|error| invalid("command", &error))?;
        }
        if let Some(health) = wish.health.as_ref().filter(|health| !health.is_none()) {
            health.check().map_err(|error| invalid("health", &error))?;
        }
        wish.timing.check().map_err(|error| invalid("timing", &error))?;
        if wish.note.chars().count() > MAX_NOTE {
            let error = InvalidValue::new("note", &wish.note, format!("it must have at most {MAX_NOTE} characters"));
            return Err(invalid("note", &error));
        }
        Ok(())
    }

    /// The image that is asked for, by digest.
    async fn wanted_image(&self, caller: &Caller, row: &AppRow, wish: &Deploy) -> Result<Option<ImageRef>, Problem> {
        let named = match (wish.build, &wish.image) {
            (Some(id), _) => Some(self.image_of_build(row, id).await?),
            (None, Some(image)) => {
                self.require_own_image(caller, image).await?;
                Some(image.clone())
            }
            (None, None) => None,
        };
        match named {
            Some(image) => Ok(Some(self.registry.resolve(&image).await?)),
            None => Ok(None),
        }
    }

    async fn image_of_build(&self, row: &AppRow, id: u64) -> Result<ImageRef, Problem> {
        let app = &row.name;
        let view = build::get(&mut self.conn().await?, id).await?;
        let view = view.filter(|view| view.app == *app && view.started_at >= row.created_at);
        let view =
            view.ok_or_else(|| refuse("build", "no-such-build", format!("there is no build {id} of app {app}")))?;
        match (view.status, &view.image) {
            (BuildStatus::Succeeded, Some(image)) => {
                image.parse().map_err(|error: InvalidValue| Problem::internal(&error))
            }
            (status, _) => {
                let detail = format!("build {id} has no image: it is {}", status.as_str());
                Err(refuse("build", "build-not-ready", detail))
            }
        }
    }

    /// Makes a release and asks for its deployment.
    pub(crate) async fn deploy(&self, caller: &Caller, row: &AppRow, wish: &Deploy) -> Result<DeploymentView, Problem> {
        self.check_deploy(wish)?;
        let image = self.wanted_image(caller, row, wish).await?;
        let name = &row.name;
        let mut change = self.begin().await?;
        let row = within(&mut change, row).await?;
        let base = base_release(&mut change.tx, &row).await?;
        let image = image.or_else(|| base.as_ref().map(|base| base.image.clone())).ok_or_else(|| {
            let detail = format!("name an image or a build: app {name} has no release yet that it could be taken from");
            refuse("image", "image-missing", detail)
        })?;
        let instances = wish.instances.unwrap_or(row.instances);
        if instances != row.instances {
            app::set_instances(&mut change, name, instances).await?;
        }
        let spec = lay_over(image, wish, base.as_ref());
        self.check_quota(&mut change.tx, caller, &row, instances, Some(spec.memory_mb)).await?;
        let row = AppRow { instances, ..row };
        let id = release_and_deploy(&mut change, caller, &row, &spec, &wish.note).await?;
        self.commit(change).await?;
        self.deployment_view(id).await
    }

    /// The release that a change starts from, again, with the newest environment. Within the change.
    pub(crate) async fn redeploy(
        &self,
        change: &mut Change,
        caller: &Caller,
        row: &AppRow,
        note: &str,
    ) -> Result<Option<u64>, Problem> {
        let Some(base) = base_release(&mut change.tx, row).await? else { return Ok(None) };
        let spec = lay_over(base.image.clone(), &Deploy::default(), Some(&base));
        release_and_deploy(change, caller, row, &spec, note).await.map(Some)
    }

    /// Asks for an old release to be brought into force again.
    pub(crate) async fn rollback(
        &self,
        caller: &Caller,
        row: &AppRow,
        wish: &Rollback,
    ) -> Result<DeploymentView, Problem> {
        let name = &row.name;
        let mut change = self.begin().await?;
        let row = within(&mut change, row).await?;
        let (id, number) = match wish.release {
            Some(number) => {
                let view = release::by_number(&mut change.tx, name, number).await?;
                let none = || refuse("release", "no-such-release", format!("app {name} has no release {number}"));
                (view.ok_or_else(none)?.id, number)
            }
            None => {
                let none = || {
                    let detail = format!("app {name} has no release before the present one to go back to");
                    Problem::conflict("nothing-to-roll-back-to", detail)
                };
                let present = row.release_id.ok_or_else(none)?;
                let id = deployment::release_before(&mut change.tx, name, present).await?.ok_or_else(none)?;
                let number = release::by_ids(&mut change.tx, &[id]).await?.first().map_or(0, |view| view.number);
                (id, number)
            }
        };
        if row.release_id == Some(id) && !deployment::any_unfinished(&mut change.tx, name).await? {
            let detail = format!("release {number} of app {name} is in force already");
            return Err(Problem::conflict("already-in-force", detail));
        }
        let memory_mb = release::by_ids(&mut change.tx, &[id]).await?.first().map(|view| view.memory_mb);
        self.check_quota(&mut change.tx, caller, &row, row.instances, memory_mb).await?;
        let deployment = deployment::insert(&mut change, name, id, caller.name()).await?;
        record(&mut change, caller, "app.rollback", &object(name), &format!("to release {number}")).await?;
        self.commit(change).await?;
        self.deployment_view(deployment).await
    }

    /// Asks the server to end a deployment.
    pub(crate) async fn cancel_deployment(
        &self,
        caller: &Caller,
        view: &DeploymentView,
    ) -> Result<DeploymentView, Problem> {
        let mut change = self.begin().await?;
        if !deployment::request_cancel(&mut change, view.id).await? {
            let detail = format!("deployment {} has ended: it is {}", view.id, view.state.as_str());
            return Err(Problem::conflict("has-ended", detail));
        }
        record(&mut change, caller, "deployment.cancel", &object(&view.app), &format!("deployment {}", view.id))
            .await?;
        self.commit(change).await?;
        self.deployment_view(view.id).await
    }

    async fn deployment_view(&self, id: u64) -> Result<DeploymentView, Problem> {
        let view = deployment::find(&mut self.conn().await?, id).await?;
        view.ok_or_else(|| Problem::not_found(format!("there is no deployment {id}")))
    }
}

/// What a new release starts from: the release that is on its way, where there is one, so that a change does not undo
/// it; else the one in force.
async fn base_release<Q: Queryable>(conn: &mut Q, row: &AppRow) -> Result<Option<ReleaseView>, Problem> {
    let newest = deployment::newest(conn, &[&row.name]).await?.pop();
    let on_its_way = newest.filter(is_on_its_way).map(|newest| newest.release_id);
    match on_its_way.or(row.release_id) {
        Some(id) => Ok(release::by_ids(conn, &[id]).await?.pop()),
        None => Ok(None),
    }
}

fn is_on_its_way(view: &DeploymentView) -> bool {
    use dinp_common::api::people::DeploymentState::{Pending, Rolling, Verifying};
    matches!(view.state, Pending | Rolling | Verifying)
}

async fn release_and_deploy(
    change: &mut Change,
    caller: &Caller,
    row: &AppRow,
    spec: &Spec,
    note: &str,
) -> Result<u64, Problem> {
    let domains = domain::list(&mut change.tx, &row.name).await?;
    let domains: Vec<String> = domains.into_iter().map(|domain| domain.name.into()).collect();
    let new = NewRelease {
        app: &row.name,
        image: &spec.image,
        command: spec.command.as_deref(),
        memory_mb: spec.memory_mb,
        cpu_millis: spec.cpu_millis,
        cpu_limit_millis: spec.cpu_limit_millis,
        health: spec.health.as_ref(),
        timing: spec.timing,
        env_version: row.env_version,
        instances: row.instances,
        domains: &domains,
        created_by: caller.name(),
        note,
    };
    let release = release::insert(change, &new).await?;
    let id = deployment::insert(change, &row.name, release, caller.name()).await?;
    record(change, caller, "app.deploy", &object(&row.name), &spec.image.to_string()).await?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageRef {
        "control:5000/anna/web:v1".parse().unwrap()
    }

    fn base() -> ReleaseView {
        ReleaseView {
            id: 7,
            number: 3,
            image: image(),
            command: Some(vec!["run".into()]),
            memory_mb: 512,
            cpu_millis: 200,
            cpu_limit_millis: Some(400),
            health: Some(HealthCheck::new("/health")),
            timing: Timing::default(),
            env_version: 1,
            instances: 2,
            created_by: "anna".into(),
            created_at: 0,
            note: String::new(),
        }
    }

    #[test]
    fn what_is_absent_is_as_before_and_what_is_empty_goes() {
        let same = lay_over(image(), &Deploy::default(), Some(&base()));
        assert_eq!((same.memory_mb, same.cpu_millis, same.cpu_limit_millis), (512, 200, Some(400)));
        assert_eq!((same.command, same.health), (base().command, base().health));
        let first = lay_over(image(), &Deploy::default(), None);
        assert_eq!((first.memory_mb, first.cpu_millis, first.command, first.health), (256, 100, None, None));
        let health = HealthCheck { path: String::new(), ..HealthCheck::new("/") };
        let wish = Deploy { command: Some(vec![]), health: Some(health), memory_mb: Some(128), ..Deploy::default() };
        let spec = lay_over(image(), &wish, Some(&base()));
        assert_eq!((spec.command, spec.health, spec.memory_mb), (None, None, 128));
    }
}
