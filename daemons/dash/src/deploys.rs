//! Releases and deployments: what is to run, and how it came about.

use crate::apps::{object, within};
use crate::inherit::{Parents, Spec};
use crate::{Caller, Dash, environment, invalid, record, refuse};
use dinp_common::api::builder::BuildStatus;
use dinp_common::api::people::{Deploy, DeploymentView, Rollback};
use dinp_common::model::{ImageRef, InvalidValue};
use dinp_common::problem::Problem;
use dinp_common::store::app::{self, AppRow};
use dinp_common::store::release::NewRelease;
use dinp_common::store::{Change, build, deployment, domain, release};

/// Longest note.
const MAX_NOTE: usize = 1000;
/// Most words of a command, and most bytes of all of them.
const MAX_COMMAND: (usize, usize) = (128, 16 * 1024);

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
        environment::check(&wish.env).map_err(of_env)?;
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

    /// Makes a release, with what changes in the environment, and asks for its deployment.
    pub(crate) async fn deploy(&self, caller: &Caller, row: &AppRow, wish: &Deploy) -> Result<DeploymentView, Problem> {
        self.check_deploy(wish)?;
        let image = self.wanted_image(caller, row, wish).await?;
        let name = &row.name;
        let mut change = self.begin().await?;
        let row = within(&mut change, row).await?;
        let parents = Parents::of(&mut change.tx, &row).await?;
        let spec = parents.spec(image, wish).ok_or_else(|| {
            let detail = format!("name an image or a build: app {name} has no release yet that it could be taken from");
            refuse("image", "image-missing", detail)
        })?;
        let instances = wish.instances.unwrap_or(row.instances);
        if instances != row.instances {
            app::set_instances(&mut change, name, instances).await?;
        }
        self.check_quota(&mut change.tx, caller, &row, instances, Some(spec.memory_mb)).await?;
        let standing = environment::standing(&mut change.tx, &row).await?;
        let env_version = environment::apply(&mut change, caller, &row, &wish.env, &standing).await.map_err(of_env)?;
        let row = AppRow { instances, env_version, ..row };
        let id = release_and_deploy(&mut change, caller, &row, &spec, &wish.note).await?;
        self.commit(change).await?;
        self.deployment_view(id).await
    }

    /// The releases that a new one of this app would start from.
    pub(crate) async fn parents(&self, row: &AppRow) -> Result<Parents, Problem> {
        Parents::of(&mut self.conn().await?, row).await
    }

    /// What runs, again, with the settings that were made last and this row's environment. Within the change.
    pub(crate) async fn redeploy(
        &self,
        change: &mut Change,
        caller: &Caller,
        row: &AppRow,
        note: &str,
    ) -> Result<Option<u64>, Problem> {
        let spec = Parents::of(&mut change.tx, row).await?.spec(None, &Deploy::default());
        let Some(spec) = spec else { return Ok(None) };
        // What was set last need not be what runs, and may take more.
        self.check_quota(&mut change.tx, caller, row, row.instances, Some(spec.memory_mb)).await?;
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

/// A problem with what changes in the environment, with its field's place in the deployment's document.
fn of_env(problem: Problem) -> Problem {
    match problem.text("field").map(|field| format!("env.{field}")) {
        Some(field) => problem.with("field", field),
        None => problem,
    }
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
