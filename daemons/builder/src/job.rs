//! One build, from the checked package to the image in the registry and the record that says so.

use crate::context;
use crate::direct::{Direct, DirectError, LeftToEngine};
use crate::engine::{BuildRequest, EngineError};
use crate::log::BuildLog;
use crate::own_dockerfile;
use crate::package::Package;
use crate::registry::RegistryError;
use crate::runtime::{Recipe, Runtime};
use crate::service::{Service, Stop};
use crate::template::{Template, TemplateError, Values};
use dinp_common::api::UnixMillis;
use dinp_common::api::builder::BuildStatus;
use dinp_common::error::ErrorChain;
use dinp_common::model::{AppName, IMAGE_APP_LABEL, ImageRef, InvalidValue};
use dinp_common::store::{self, StoreError};
use mysql_async::Conn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Where packages are in images.
const APP_DIR: &str = "/app";
const DEADLINE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);
/// How long cleaning up may hold up the end of a build.
const CLEANING: Duration = Duration::from_secs(8);

/// What is to be built.
#[derive(Debug)]
pub struct Job {
    /// Id of its record.
    pub id: u64,
    /// The app that it is for.
    pub app: AppName,
    /// When that app was created, where it is known.
    pub app_created_at: Option<UnixMillis>,
    /// What this version is called.
    pub version: String,
    /// How.
    pub runtime: Runtime,
    /// From what.
    pub package: Package,
    /// What its owner should know of it, one line each.
    pub notes: Vec<String>,
    /// Name of the image in the registry.
    pub image: ImageRef,
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
                _ => Outcome::Failed("the builder was stopped".into()),
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
        };
        // The log is whole before the record says that it ended.
        log.close(writer).await;
        tokio::select! {
            () = self.record(&service, &outcome) => {}
            () = service.abandon.cancelled() => tracing::error!(build = self.id, "end of a build could not be recorded"),
        }
        let secs = begun.elapsed().as_secs_f64();
        metrics::counter!("dinp_builder_builds_total", "outcome" => word).increment(1);
        metrics::histogram!("dinp_builder_build_seconds").record(secs);
        tracing::info!(app = %self.app, build = self.id, version = self.version, outcome = word, secs, "build ended");
    }

    async fn build(&self, service: &Service, log: &BuildLog, asked_engine: &AtomicBool) -> Result<ImageRef, JobError> {
        let registry = &service.registry;
        self.stage(service, "building").await;
        self.tell(log);
        let pushed = match &self.runtime.recipe {
            Recipe::Template { base, template } => {
                let base = self.base(service, base).await?;
                log.line(&format!("base {base}"));
                match self.directly(service, &base, template, log).await {
                    Err(JobError::Direct(DirectError::Left(left))) => {
                        log.line(&format!("built by the Docker Engine: {left}"));
                        asked_engine.store(true, Ordering::Relaxed);
                        let dockerfile = self.dockerfile(&base, template, &service.scope.labels(self.id))?;
                        self.by_engine(service, context::Dockerfile::Rendered(dockerfile), log).await?
                    }
                    pushed => pushed?,
                }
            }
            Recipe::Own(allowed) => {
                log.line("built by its own Dockerfile");
                asked_engine.store(true, Ordering::Relaxed);
                self.by_engine(service, context::Dockerfile::Own { registry: allowed.registry.clone() }, log).await?
            }
        };
        let found = registry.digest(&self.image).await?.unwrap_or_else(|| "nothing".into());
        if found != pushed {
            return Err(JobError::Changed { found, pushed });
        }
        Ok(self.image.with_digest(&pushed)?)
    }

    /// Says of what the image is made.
    fn tell(&self, log: &BuildLog) {
        let Package { spooled, format, .. } = &self.package;
        let (bytes, sha256, runtime) = (spooled.len(), spooled.sha256(), &self.runtime.name);
        log.line(&format!("package of {bytes} bytes ({format}, sha256 {sha256}), runtime {runtime}"));
        self.notes.iter().for_each(|note| log.line(note));
    }

    /// Makes the image without the Engine, unless that has to make it; returns its digest.
    async fn directly(
        &self,
        service: &Service,
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
        let (cache, package, image) = (&service.cache, &self.package, &self.image);
        let direct = Direct { registry, cache, base, dockerfile: &dockerfile, package, image };
        let begun = Instant::now();
        let made = direct.make().await.map_err(JobError::Direct)?;
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

    /// Lets the Engine make the image and push it; returns its digest.
    async fn by_engine(
        &self,
        service: &Service,
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
        engine.build(&request, context::stream(self.package.clone(), dockerfile), log).await?;

        self.stage(service, "pushing").await;
        self.is_free(service).await?;
        Ok(engine.push(self.id, &self.image, (registry.push_address(), registry.account()), log).await?)
    }

    /// Whether the registry has nothing under the image's name that may not be written over.
    async fn is_free(&self, service: &Service) -> Result<(), JobError> {
        let Some(found) = service.registry.digest(&self.image).await? else { return Ok(()) };
        if service.is_left_over(&self.app, self.app_created_at, &self.image, &found).await? {
            return Ok(());
        }
        Err(JobError::Taken(self.version.clone()))
    }

    /// The base image by digest, so that the Engine builds on what stands in the record.
    async fn base(&self, service: &Service, named: &ImageRef) -> Result<ImageRef, JobError> {
        if named.registry() != service.registry.address() {
            return Ok(named.clone());
        }
        let digest = service.registry.digest(named).await?.ok_or_else(|| JobError::NoBase(named.clone()))?;
        let base = named.with_digest(&digest)?;
        let text = base.to_string();
        self.note(service, "base", async |conn, id| store::build::set_base(conn, id, &text).await).await;
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
            ("app", self.app.as_str()),
            ("app_dir", APP_DIR),
            ("base", base.as_str()),
            ("runtime", self.runtime.name.as_str()),
            ("version", self.version.as_str()),
        ]);
        let mut labels = vec![("org.opencontainers.image.base.name", base.clone())];
        labels.extend(self.labels());
        labels.extend(further.iter().cloned());
        template.render(&values, &labels)
    }

    /// Labels that tell what the image is.
    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            ("org.opencontainers.image.version", self.version.clone()),
            (IMAGE_APP_LABEL, self.app.to_string()),
            ("dinp.image.runtime", self.runtime.name.to_string()),
            ("dinp.image.package", format!("sha256:{}", self.package.spooled.sha256())),
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
        self.note(service, stage, async |conn, id| store::build::set_stage(conn, id, stage).await).await;
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

    async fn record(&self, service: &Service, outcome: &Outcome) {
        let (status, reason, image) = match outcome {
            Outcome::Succeeded(image) => (BuildStatus::Succeeded, "", Some(image.to_string())),
            Outcome::Failed(reason) => (BuildStatus::Failed, reason.as_str(), None),
            Outcome::Cancelled => (BuildStatus::Cancelled, "", None),
        };
        loop {
            let write = async {
                let mut conn = store::connect(&service.pool, DEADLINE).await?;
                store::build::finish(&mut conn, self.id, status, reason, image.as_deref()).await?;
                Ok::<(), StoreError>(())
            };
            let Err(error) = write.await else { return };
            tracing::warn!(build = self.id, error = %ErrorChain(&error), "end of a build cannot be recorded yet");
            tokio::time::sleep(RETRY).await;
        }
    }
}
