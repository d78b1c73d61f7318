//! What the endpoints and the builds of one builder share: its connections, and the builds under way.

use crate::activity::{Activity, Busy};
use crate::config::BuilderConfig;
use crate::direct::Cache;
use crate::engine::{Engine, EngineError, Scope};
use crate::intake::Intake;
use crate::kept::Kept;
use crate::neighbours::Neighbours;
use crate::registry::Registry;
use crate::resume;
use crate::runtime::Runtimes;
use crate::uploads::Uploads;
use dinp_common::api::UnixMillis;
use dinp_common::api::builder::BuildStatus;
use dinp_common::auth::ServiceAuth;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat};
use dinp_common::model::{AppName, ImageRef};
use dinp_common::store::{self, StoreError};
use mysql_async::{Conn, Pool};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const DEADLINE: Duration = Duration::from_secs(3);
/// From one try to the next where the database is away.
const RETRY: Duration = Duration::from_secs(1);
/// Where packages are while they arrive, in the state directory.
const SPOOL: &str = "spool";
/// How often what a builder needs is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long a look at the Engine may take.
const LONGEST_LOOK: Duration = Duration::from_secs(30);
/// How long builds that were stopped may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// Packages that are read at the same time. Each takes up to 60 MB of memory; the unit's MemoryMax= counts on that.
const INSPECTIONS: usize = 2;

/// Why a build is to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A person wants it.
    Cancel,
    /// The builder stops.
    Shutdown,
    /// Another builder has it now.
    Lost,
}

/// A build under way.
#[derive(Debug)]
struct Running {
    stop: watch::Sender<Option<Stop>>,
    ended: CancellationToken,
}

/// One builder.
pub struct Service {
    /// Its settings.
    pub config: BuilderConfig,
    /// Its name in records.
    pub name: String,
    /// The database.
    pub pool: Pool,
    /// Verifies callers.
    pub auth: ServiceAuth,
    /// Its images at the Engine.
    pub scope: Scope,
    /// Where images go.
    pub registry: Registry,
    /// What it can build.
    pub runtimes: Runtimes,
    /// What earlier builds found out.
    pub(crate) cache: Cache,
    /// Places for packages.
    pub intake: Intake,
    /// Packages of builds under way.
    pub kept: Kept,
    /// Packages that arrive in parts.
    pub uploads: Uploads,
    /// Packages that may be read now.
    pub inspections: Arc<Semaphore>,
    /// Builds that may run now.
    pub slots: Semaphore,
    /// What holds off the idle exit.
    pub activity: Activity,
    /// Cancelled when the process ends: nothing is retried any more.
    pub abandon: CancellationToken,
    running: Mutex<HashMap<u64, Running>>,
    tasks: TaskTracker,
    recovered: OnceCell<()>,
    watching: tokio::sync::Mutex<Watching>,
    /// Itself, for what it begins by itself.
    me: Weak<Self>,
}

/// What a builder watches beside the builds that it is at.
#[derive(Default)]
struct Watching {
    /// Builds of others that are silent.
    neighbours: Neighbours,
    /// Builds of its own that nobody is at: whoever asked may have gone between the record and the start.
    strays: HashSet<u64>,
    /// It is not idle meanwhile.
    busy: Option<Busy>,
}

impl Service {
    /// A builder that has done nothing yet; its state directory is made where it is not there.
    pub fn new(
        config: BuilderConfig,
        name: String,
        pool: Pool,
        registry: Registry,
        runtimes: Runtimes,
    ) -> io::Result<Arc<Self>> {
        let kept = Kept::open(config.state_dir.join("builds"))?;
        let intake = Intake::new(config.packages_per_person, config.packages_max, config.spool_max_mb);
        let keep = Duration::from_secs(config.package.upload_keep_secs.into());
        let uploads = Uploads::open(config.state_dir.join("uploads"), keep, &intake)?;
        std::fs::create_dir_all(config.state_dir.join(SPOOL))?;
        Ok(Arc::new_cyclic(|me| Self {
            me: me.clone(),
            kept,
            uploads,
            intake,
            watching: tokio::sync::Mutex::default(),
            auth: ServiceAuth::new(pool.clone()),
            inspections: Arc::new(Semaphore::new(INSPECTIONS)),
            slots: Semaphore::new(config.concurrent_builds as usize),
            cache: Cache::open(config.state_dir.join("cache")),
            config,
            scope: Scope::new(registry.address(), &name),
            name,
            pool,
            registry,
            runtimes,
            activity: Activity::default(),
            abandon: CancellationToken::new(),
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            recovered: OnceCell::new(),
        }))
    }

    /// Where packages are spooled.
    pub fn spool(&self) -> PathBuf {
        self.config.state_dir.join(SPOOL)
    }

    /// A connection to the database, once what an earlier process left goes on.
    pub async fn connect(&self) -> Result<Conn, StoreError> {
        let mut conn = store::connect(&self.pool, DEADLINE).await?;
        self.recovered.get_or_try_init(|| self.recover(&mut conn)).await?;
        Ok(conn)
    }

    /// Whether what the registry has under an image's name was built for a deleted app of the same name and owner. The name
    /// is free then: releases name their image by digest, and by digest it stays. Nothing else is ever written over, least
    /// of all what is on no record.
    pub async fn is_left_over(
        &self,
        app: &AppName,
        created_at: Option<UnixMillis>,
        image: &ImageRef,
        digest: &str,
    ) -> Result<bool, StoreError> {
        let (Some(created_at), Ok(found)) = (created_at, image.with_digest(digest)) else { return Ok(false) };
        let mut conn = self.connect().await?;
        store::build::is_of_deleted_app(&mut conn, app.as_str(), &found.to_string(), created_at).await
    }

    /// Goes on with the builds that an earlier process left.
    async fn recover(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let held = store::build::held_by(conn, &self.name).await?;
        let ids: Vec<u64> = held.iter().map(|build| build.id).collect();
        if let Err(error) = self.kept.forget_all_but(&ids) {
            tracing::warn!(%error, "packages of ended builds stay on disk");
        }
        if let Some(me) = self.me.upgrade() {
            held.into_iter().for_each(|build| resume::go_on(&me, build));
        }
        Ok(())
    }

    /// Reads or writes something of a build's record, however long that takes.
    pub async fn insist<T, A>(&self, build: u64, ask: impl Fn(Conn) -> A) -> T
    where
        A: Future<Output = Result<T, StoreError>>,
    {
        loop {
            let asked = async { ask(store::connect(&self.pool, DEADLINE).await?).await };
            match asked.await {
                Ok(answer) => return answer,
                Err(error) => {
                    tracing::warn!(build, error = %ErrorChain(&error), "record of a build cannot be written yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Writes the end of a build into its record.
    pub async fn finish(&self, id: u64, status: BuildStatus, reason: &str, image: Option<&str>) {
        let finish =
            move |mut conn| async move { store::build::finish(&mut conn, &self.name, id, status, reason, image).await };
        self.insist(id, finish).await;
    }

    /// Says that this builder is at its builds, ends those that are to end or are its own no more, and looks after builds that
    /// others have given up.
    async fn look_at_builds(&self, conn: &mut Conn) -> Result<(), StoreError> {
        // What was stopped for the end of this process is left to the next one.
        if self.tasks.is_closed() {
            return Ok(());
        }
        let running: Vec<u64> = self.running().keys().copied().collect();
        let held = store::build::held_by(conn, &self.name).await?;
        if !held.is_empty() {
            store::build::beat(conn, &self.name).await?;
        }
        for id in &running {
            match held.iter().find(|build| build.id == *id) {
                Some(build) if build.cancel_asked => self.stop(*id, Stop::Cancel),
                Some(_) => {}
                None => self.stop(*id, Stop::Lost),
            }
        }
        let mut watching = self.watching.lock().await;
        let Watching { neighbours, strays, busy } = &mut *watching;
        let (old, new): (Vec<_>, Vec<_>) =
            held.into_iter().filter(|build| !running.contains(&build.id)).partition(|build| strays.contains(&build.id));
        *strays = new.into_iter().map(|build| build.id).collect();
        if let Some(me) = self.me.upgrade() {
            old.into_iter().for_each(|build| resume::go_on(&me, build));
        }
        let give_up = self.config.give_up_secs;
        let silent = store::build::silent(conn, &self.name, give_up).await?;
        for build in neighbours.given_up(silent, Duration::from_secs(give_up.into()), Instant::now()) {
            if store::build::take_over(conn, &build, &self.name).await?
                && let Some(me) = self.me.upgrade()
            {
                tracing::warn!(build = build.id, builder = build.builder, "builder is silent, its build is taken over");
                resume::take_over(&me, build);
            }
        }
        let is_watching = neighbours.is_watching() || !strays.is_empty();
        *busy = is_watching.then(|| busy.take().unwrap_or_else(|| self.activity.begin()));
        Ok(())
    }

    fn stop(&self, id: u64, why: Stop) {
        if let Some(build) = self.running().get(&id) {
            build.stop.send_replace(Some(why));
        }
    }

    /// Connects to the local Engine, anew for each build: it may come and go.
    pub async fn engine(&self) -> Result<Engine, EngineError> {
        Engine::connect(&self.config.docker_socket, self.scope.clone(), self.config.time_limit()).await
    }

    /// Lets a build run. `work` is told when it is to end early.
    pub fn start<W>(self: &Arc<Self>, id: u64, work: impl FnOnce(watch::Receiver<Option<Stop>>) -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(None);
        let ended = CancellationToken::new();
        let work = work(stopped);
        self.running().insert(id, Running { stop, ended: ended.clone() });
        metrics::gauge!("dinp_builder_builds_running").increment(1.0);
        let service = self.clone();
        self.tasks.spawn(async move {
            let busy = service.activity.begin();
            // A task of its own, so that a panic still ends the record's entry here.
            if let Err(error) = tokio::spawn(work).await {
                tracing::error!(build = id, %error, "build panicked");
            }
            service.running().remove(&id);
            metrics::gauge!("dinp_builder_builds_running").decrement(1.0);
            ended.cancel();
            drop(busy);
        });
    }

    /// Ends a build early; false where none of that id is under way here.
    pub async fn cancel(&self, id: u64) -> bool {
        let ended = {
            let running = self.running();
            let Some(build) = running.get(&id) else { return false };
            build.stop.send_replace(Some(Stop::Cancel));
            build.ended.clone()
        };
        // Who asks again right away should see it ended.
        if tokio::time::timeout(LAST_WORDS, ended.cancelled()).await.is_err() {
            tracing::warn!(build = id, "cancelled build takes its time to end");
        }
        true
    }

    /// Lets builds go on until the deadline, then stops them.
    pub async fn drain(&self, deadline: Instant) {
        self.tasks.close();
        if tokio::time::timeout_at(deadline.into(), self.tasks.wait()).await.is_ok() {
            return;
        }
        for (id, build) in self.running().iter() {
            tracing::warn!(build = id, "drain deadline passed, stopping build {id}");
            build.stop.send_replace(Some(Stop::Shutdown));
        }
        if tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
            self.abandon.cancel();
            if tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
                tracing::error!(builds = self.tasks.len(), "builds do not end, leaving them");
            }
        }
    }

    /// Shows whether the database and the Engine are there, for as long as the daemon lives.
    pub async fn watch(&self, database: &Condition, engine: &Condition, beat: &Heartbeat) {
        let mut cleaned = false;
        loop {
            beat.beat();
            self.uploads.forget_old();
            let looked = async { self.look_at_builds(&mut self.connect().await?).await };
            match looked.await {
                Ok(()) => database.ok(),
                Err(error) => database.missing(&ErrorChain(&error).to_string()),
            }
            match tokio::time::timeout(LONGEST_LOOK, self.look_at_engine(&mut cleaned)).await {
                Ok(Ok(())) => engine.ok(),
                Ok(Err(error)) => engine.missing(&ErrorChain(&error).to_string()),
                Err(_) => engine.missing("no answer"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look_at_engine(&self, cleaned: &mut bool) -> Result<(), EngineError> {
        let engine = self.engine().await?;
        engine.ping().await?;
        // What an earlier process left goes once, and only while no build of this one could be hurt.
        if !*cleaned && self.running().is_empty() {
            engine.clean_all().await;
            *cleaned = true;
        }
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
