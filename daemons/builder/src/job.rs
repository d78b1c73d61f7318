//! One build, from the checked package to the image in the registry and the record that says so.

use crate::context;
use crate::direct::{Base, Direct, DirectError, LeftToEngine, Old};
use crate::engine::{BuildRequest, EngineError};
use crate::kept::Order;
use crate::log::BuildLog;
use crate::own_dockerfile;
use crate::package::Package;
use crate::registry::RegistryError;
use crate::runtime::{Recipe, Runtime};
use crate::service::{Service, Stop};
use crate::template::{Template, TemplateError, Values};
use dinp_common::api::builder::BuildStatus;
use dinp_common::error::ErrorChain;
use dinp_common::model::{IMAGE_APP_LABEL, ImageRef, InvalidValue};
use dinp_common::store::{self, StoreError};
use mysql_async::Conn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Where packages are in images.
const APP_DIR: &str = "/app";
const DEADLINE: Duration = Duration::from_secs(5);
/// How long cleaning up may hold up the end of a build.
const CLEANING: Duration = Duration::from_secs(8);

/// What is to be built.
#[derive(Debug)]
pub struct Job {
    /// Id of its record.
    pub id: u64,
    /// How often it has begun.
    pub attempt: u8,
    /// What was asked for.
    pub order: Order,
    /// How.
    pub runtime: Runtime,
    /// From what.
    pub material: Material,
}

/// From what an image is made.
#[derive(Debug)]
pub enum Material {
    /// A package.
    Package(Package),
    /// The package that is in an older image.
    Image(Old),
}

/// Begins a build whose record is new, and keeps what it needs to begin again. `place` is let go when it has ended.
pub fn begin(
    service: &Arc<Service>,
    id: u64,
    order: Order,
    runtime: Runtime,
    material: Material,
    place: impl Send + 'static,
) {
    let package = match &material {
        Material::Package(package) => Some(&package.spooled),
        Material::Image(_) => None,
    };
    if let Err(error) = service.kept.keep(id, &order, package) {
        tracing::warn!(build = id, %error, "build cannot be kept: a restart of the builder would lose it");
    }
    let job = Job { id, attempt: 1, order, runtime, material };
    let built = service.clone();
    service.start(id, |stop| async move {
        job.run(built, stop).await;
        drop(place);
    });
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the Dockerfile cannot be made")]
    Template(#[from] TemplateError),
    #[error("the image cannot be made")]
    Direct(#[source] DirectError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the base image {0} is not in the registry: an operator puts it there with `dinp setup base-images`")]
    NoBase(ImageRef),
    #[error("its package is needed, deploy it again: {0}")]
    NeedsPackage(LeftToEngine),
    #[error("version {0} is in the registry already, and versions are never changed")]
    Taken(String),
    #[error("the registry has another image under this version than was pushed: {found} instead of {pushed}")]
    Changed { found: String, pushed: String },
    #[error("the registry's answer makes no sense")]
    Digest(#[from] InvalidValue),
    #[error("it took longer than {0} s, which is the limit of this builder")]
    TooLong(u64),
}

/// How a build ended.
enum Outcome {
    Succeeded(ImageRef),
    Failed(String),
    Cancelled,
    /// It goes on when the builder is back.
    Interrupted,
    /// Another builder has it now.
    Lost,
}

impl Job {
    /// Builds, and writes the end into the record.
    pub async fn run(self, service: Arc<Service>, mut stop: watch::Receiver<Option<Stop>>) {
        let begun = Instant::now();
        let (log, writer) = BuildLog::begin(service.pool.clone(), self.id, service.abandon.clone());
        let limit = service.config.time_limit();
        // Only then is there anything to clean up, and a need of an Engine that answers.
        let asked_engine = AtomicBool::new(false);
        let work = async {
            let _slot = service.slots.acquire().await;
            match tokio::time::timeout(limit, self.build(&service, &log, &asked_engine)).await {
                Ok(built) => built,
                Err(_) => Err(JobError::TooLong(limit.as_secs())),
            }
        };
        let outcome = tokio::select! {
            built = work => match built {
                Ok(image) => Outcome::Succeeded(image),
                Err(error) => Outcome::Failed(ErrorChain(&error).to_string()),
            },
            stopped = stop.wait_for(Option::is_some) => match stopped.as_deref() {
                Ok(Some(Stop::Cancel)) => Outcome::Cancelled,
                Ok(Some(Stop::Lost)) => Outcome::Lost,
                _ => Outcome::Interrupted,
            },
        };
        if asked_engine.load(Ordering::Relaxed) {
            self.clean(&service).await;
        }
        let word = match &outcome {
            Outcome::Succeeded(image) => {
                log.line(&format!("done: {image}"));
                "succeeded"
            }
            Outcome::Failed(reason) => {
                log.line(&format!("failed: {reason}"));
                "failed"
            }
            Outcome::Cancelled => {
                log.line("cancelled");
                "cancelled"
            }
            Outcome::Interrupted => {
                log.line("interrupted: the builder stops, and goes on with this build when it is back");
                "interrupted"
            }
            Outcome::Lost => "lost",
        };
        // The log is whole before the record says that it ended.
        log.close(writer).await;
        tokio::select! {
            () = self.record(&service, outcome) => {}
            () = service.abandon.cancelled() => tracing::error!(build = self.id, "end of a build could not be recorded"),
        }
        let secs = begun.elapsed().as_secs_f64();
        metrics::counter!("dinp_builder_builds_total", "outcome" => word).increment(1);
        metrics::histogram!("dinp_builder_build_seconds").record(secs);
        tracing::info!(app = %self.order.app, build = self.id, version = self.order.version, outcome = word, secs, "build ended");
    }

    async fn build(&self, service: &Service, log: &BuildLog, asked_engine: &AtomicBool) -> Result<ImageRef, JobError> {
        let registry = &service.registry;
        self.stage(service, "building").await;
        if self.attempt > 1 {
            log.line(&format!("attempt {}", self.attempt));
            if let Some(image) = self.made_before(service).await? {
                log.line("the attempt before has made the image");
                return Ok(image);
            }
        }
        self.tell(log);
        let pushed = match (&self.material, &self.runtime.recipe) {
            (Material::Image(old), Recipe::Template { template, .. }) => {
                self.swapped(service, old, template, log).await?
            }
            (Material::Package(package), Recipe::Template { base, template }) => {
                let base = self.base(service, self.order.base.as_ref().unwrap_or(base)).await?;
                log.line(&format!("base {base}"));
                match self.directly(service, package, &base, template, log).await {
                    Err(JobError::Direct(DirectError::Left(left))) => {
                        log.line(&format!("built by the Docker Engine: {left}"));
                        asked_engine.store(true, Ordering::Relaxed);
                        let dockerfile = self.dockerfile(&base, template, &service.scope.labels(self.id))?;
                        self.by_engine(service, package, context::Dockerfile::Rendered(dockerfile), log).await?
                    }
                    pushed => pushed?,
                }
            }
            (Material::Package(package), Recipe::Own(allowed)) => {
                log.line("built by its own Dockerfile");
                asked_engine.store(true, Ordering::Relaxed);
                let dockerfile = context::Dockerfile::Own { registry: allowed.registry.clone() };
                self.by_engine(service, package, dockerfile, log).await?
            }
            (Material::Image(_), Recipe::Own(_)) => {
                return Err(JobError::NeedsPackage(LeftToEngine::new("its Dockerfile is in it")));
            }
        };
        let found = registry.digest(&self.order.image).await?.unwrap_or_else(|| "nothing".into());
        if found != pushed {
            return Err(JobError::Changed { found, pushed });
        }
        Ok(self.order.image.with_digest(&pushed)?)
    }

    /// Says of what the image is made.
    fn tell(&self, log: &BuildLog) {
        let runtime = &self.runtime.name;
        match &self.material {
            Material::Package(Package { spooled, format, .. }) => {
                let (bytes, sha256) = (spooled.len(), spooled.sha256());
                log.line(&format!("package of {bytes} bytes ({format}, sha256 {sha256}), runtime {runtime}"));
            }
            Material::Image(old) => {
                log.line(&format!("the package of {} (sha256 {}), runtime {runtime}", old.image, self.order.sha256));
            }
        }
        self.order.notes.iter().for_each(|note| log.line(note));
    }

    /// Makes the image without the Engine, unless that has to make it; returns its digest.
    async fn directly(
        &self,
        service: &Service,
        package: &Package,
        base: &ImageRef,
        template: &Template,
        log: &BuildLog,
    ) -> Result<String, JobError> {
        let left = |reason| Err(JobError::Direct(LeftToEngine::new(reason).into()));
        let registry = &service.registry;
        if !service.config.build.direct {
            return left("build.direct is off");
        }
        if base.registry() != registry.address() || base.digest().is_none() {
            return left("the base is not in the registry of the cluster");
        }
        // Nothing of this one build: the same package is to give the same image.
        let dockerfile = self.dockerfile(base, template, &[])?;
        let (cache, image) = (&service.cache, &self.order.image);
        let direct = Direct { registry, cache, base, dockerfile: &dockerfile, image };
        let begun = Instant::now();
        let made = direct.make(package).await.map_err(JobError::Direct)?;
        dockerfile.lines().for_each(|line| log.line(line));
        let (bytes, secs) = (made.layer_bytes, begun.elapsed().as_secs_f64());
        log.line(&match made.was_known {
            true => format!("the layer of this package is known ({bytes} bytes), image made in {secs:.2} s"),
            false => format!("layer of {bytes} bytes, image made in {secs:.2} s"),
        });
        self.stage(service, "pushing").await;
        self.is_free(service).await?;
        Ok(direct.publish(made).await?)
    }

    /// Puts the layer of an older image on its base as that is now; returns the digest.
    async fn swapped(
        &self,
        service: &Service,
        old: &Old,
        template: &Template,
        log: &BuildLog,
    ) -> Result<String, JobError> {
        let (registry, cache, image) = (&service.registry, &service.cache, &self.order.image);
        let base = self.base(service, &service.runtimes.bases().now(&old.base)?).await?;
        log.line(&format!("base {base}, in place of {}", old.base));
        let dockerfile = self.dockerfile(&base, template, &[])?;
        let direct = Direct { registry, cache, base: &base, dockerfile: &dockerfile, image };
        let made = direct.swap(old).await.map_err(|error| match error {
            DirectError::Left(left) => JobError::NeedsPackage(left),
            error => JobError::Direct(error),
        })?;
        dockerfile.lines().for_each(|line| log.line(line));
        self.stage(service, "pushing").await;
        self.is_free(service).await?;
        Ok(direct.publish(made).await?)
    }

    /// Lets the Engine make the image and push it; returns its digest.
    async fn by_engine(
        &self,
        service: &Service,
        package: &Package,
        dockerfile: context::Dockerfile,
        log: &BuildLog,
    ) -> Result<String, JobError> {
        let (registry, config) = (&service.registry, &service.config);
        let engine = service.engine().await?;
        // What a Dockerfile of the package says of the image does not count beside this.
        let (labels, arguments) = match &dockerfile {
            context::Dockerfile::Rendered(_) => (Vec::new(), None),
            context::Dockerfile::Own { registry } => {
                let mut labels = self.labels();
                labels.extend(service.scope.labels(self.id));
                (labels, Some((own_dockerfile::REGISTRY_ARG, registry.clone())))
            }
        };
        let request = BuildRequest {
            id: self.id,
            limits: &config.build,
            network: self.runtime.network,
            registry: (registry.address(), registry.account()),
            labels,
            arguments: arguments.into_iter().collect(),
        };
        engine.build(&request, context::stream(package.clone(), dockerfile), log).await?;

        self.stage(service, "pushing").await;
        self.is_free(service).await?;
        Ok(engine.push(self.id, &self.order.image, (registry.push_address(), registry.account()), log).await?)
    }

    /// Whether the registry has nothing under the image's name that may not be written over.
    async fn is_free(&self, service: &Service) -> Result<(), JobError> {
        let Some(found) = service.registry.digest(&self.order.image).await? else { return Ok(()) };
        if service.is_left_over(&self.order.app, self.order.app_created_at, &self.order.image, &found).await? {
            return Ok(());
        }
        Err(JobError::Taken(self.order.version.clone()))
    }

    /// The image, where an earlier attempt was cut off between its last step and the record. The name was free when the
    /// build began, so what has it and is labelled as this build labels is its own.
    async fn made_before(&self, service: &Service) -> Result<Option<ImageRef>, JobError> {
        let Some(found) = service.registry.digest(&self.order.image).await? else { return Ok(None) };
        let found = self.order.image.with_digest(&found)?;
        let Ok(Base { config, .. }) = Base::fetch(&service.registry, &found).await else { return Ok(None) };
        let labels = config.get("config").and_then(|config| config.get("Labels"));
        let is = |(name, value): &(&str, String)| {
            labels.and_then(|labels| labels.get(*name)?.as_str()) == Some(value.as_str())
        };
        Ok(self.labels().iter().all(is).then_some(found))
    }

    /// The base image by digest, so that the Engine builds on what stands in the record.
    async fn base(&self, service: &Service, named: &ImageRef) -> Result<ImageRef, JobError> {
        if named.registry() != service.registry.address() {
            return Ok(named.clone());
        }
        let digest = service.registry.digest(named).await?.ok_or_else(|| JobError::NoBase(named.clone()))?;
        let base = named.with_digest(&digest)?;
        let text = base.to_string();
        self.note(service, "base", async |conn, id| store::build::set_base(conn, &service.name, id, &text).await).await;
        Ok(base)
    }

    /// The Dockerfile of this image, with these labels beside those that tell what it is.
    fn dockerfile(
        &self,
        base: &ImageRef,
        template: &Template,
        further: &[(&'static str, String)],
    ) -> Result<String, TemplateError> {
        let base = base.to_string();
        let values = Values::from([
            ("app", self.order.app.as_str()),
            ("app_dir", APP_DIR),
            ("base", base.as_str()),
            ("runtime", self.runtime.name.as_str()),
            ("version", self.order.version.as_str()),
        ]);
        let mut labels = vec![("org.opencontainers.image.base.name", base.clone())];
        labels.extend(self.labels());
        labels.extend(further.iter().cloned());
        template.render(&values, &labels)
    }

    /// Labels that tell what the image is.
    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            ("org.opencontainers.image.version", self.order.version.clone()),
            (IMAGE_APP_LABEL, self.order.app.to_string()),
            ("dinp.image.runtime", self.runtime.name.to_string()),
            ("dinp.image.package", format!("sha256:{}", self.order.sha256)),
        ]
    }

    async fn clean(&self, service: &Service) {
        let clean = async {
            match service.engine().await {
                Ok(engine) => engine.clean(self.id).await,
                Err(error) => {
                    tracing::warn!(build = self.id, error = %ErrorChain(&error), "images of a build are left behind");
                }
            }
        };
        // How a build ended must be told also where the Engine hangs; the next start cleans up.
        if tokio::time::timeout(CLEANING, clean).await.is_err() {
            tracing::warn!(build = self.id, "images of a build are left behind, the Engine does not answer");
        }
    }

    /// Shows what the build does now.
    async fn stage(&self, service: &Service, stage: &'static str) {
        self.note(service, stage, async |conn, id| store::build::set_stage(conn, &service.name, id, stage).await).await;
    }

    /// Writes something into the record; that it cannot be written does not stop it.
    async fn note(
        &self,
        service: &Service,
        what: &'static str,
        write: impl AsyncFnOnce(&mut Conn, u64) -> Result<(), StoreError>,
    ) {
        let written = async {
            let mut conn = store::connect(&service.pool, DEADLINE).await?;
            write(&mut conn, self.id).await
        };
        if let Err(error) = written.await {
            tracing::warn!(build = self.id, what, error = %ErrorChain(&error), "record of a build cannot be written");
        }
    }

    /// Writes the end into the record, and then lets go of the package.
    async fn record(&self, service: &Service, outcome: Outcome) {
        let (status, reason, image) = match outcome {
            Outcome::Succeeded(image) => (BuildStatus::Succeeded, String::new(), Some(image.to_string())),
            Outcome::Failed(reason) => (BuildStatus::Failed, reason, None),
            Outcome::Cancelled => (BuildStatus::Cancelled, String::new(), None),
            Outcome::Interrupted => return,
            Outcome::Lost => return service.kept.forget(self.id),
        };
        service.finish(self.id, status, &reason, image.as_deref()).await;
        service.kept.forget(self.id);
    }
}
