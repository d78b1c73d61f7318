//! Keeps space free for the node: on the engine's disk, and on that of the agent's state.
//!
//! | free space | what happens |
//! |---|---|
//! | below `disk.low_mb` | a fault of the node: no new work; unpinned images of ours go; instances that have written more than `container.disk_mb` are named to the leader, which replaces them |
//! | below `disk.reserve_mb` on the engine's disk | the instance that has written most is stopped, one at a time |
//!
//! Where the engine can, each container has a limit of its own (`container.disk_mb`), and it does not come to this.

mod decide;

use crate::container::{self, CLUSTER, INSTANCE};
use crate::docker::EngineError;
use crate::node::Message;
use crate::shared::Shared;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions, RemoveImageOptions};
use decide::{Limits, Pressure, Writer, offender, over_limit, unpinned};
use dinp_common::api::agent::NodeFaultKind;
use dinp_common::error::ErrorChain;
use dinp_common::model::IMAGE_APP_LABEL;
use nix::sys::statvfs::statvfs;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Time from one look to the next.
const PERIOD: Duration = Duration::from_secs(5);

/// Time from one attempt to remove images to the next.
const CLEAN: Duration = Duration::from_secs(60);

/// Time for the space of one instance to come back before another is stopped.
const SETTLE: Duration = Duration::from_secs(15);

/// How long the engine may take to add up sizes.
const SIZES: Duration = Duration::from_secs(120);

/// Looks for ever.
pub async fn watch(shared: Arc<Shared>, node: mpsc::Sender<Message>) {
    let limits = Limits::of_mb(shared.config.disk.low_mb, shared.config.disk.reserve_mb);
    let mut keeper = Keeper { shared, node, limits, pressure: HashMap::new(), cleaned: None, stopped: None };
    loop {
        if let Err(error) = keeper.look().await {
            tracing::warn!(error = %ErrorChain(&error), "space cannot be made");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

struct Keeper {
    shared: Arc<Shared>,
    node: mpsc::Sender<Message>,
    limits: Limits,
    /// By what the disk is for.
    pressure: HashMap<&'static str, Pressure>,
    cleaned: Option<Instant>,
    stopped: Option<Instant>,
}

impl Keeper {
    async fn look(&mut self) -> Result<(), EngineError> {
        let state_dir = self.shared.config.state_dir.clone();
        self.measure("space for state", &state_dir);
        let Some(root) = self.shared.traits().root else { return Ok(()) };
        let Some((pressure, free)) = self.measure("space for containers", &root) else { return Ok(()) };
        if pressure == Pressure::None {
            self.shared.board.set_over_disk(BTreeMap::new());
            return Ok(());
        }
        if is_due(self.cleaned, CLEAN) {
            self.cleaned = Some(Instant::now());
            self.clean().await?;
            self.name_writers().await?;
        }
        if pressure == Pressure::Critical && is_due(self.stopped, SETTLE) {
            self.stop_one(free).await?;
        }
        Ok(())
    }

    /// Names those to the leader that have written more than they may.
    async fn name_writers(&self) -> Result<(), EngineError> {
        let over = over_limit(&self.writers().await?, self.shared.config.container.disk_mb);
        self.shared.board.set_over_disk(over);
        Ok(())
    }

    /// How short the space at a path is, told as a fault, and what is free.
    fn measure(&mut self, what: &'static str, path: &Path) -> Option<(Pressure, u64)> {
        let free = free(path)?;
        let before = self.pressure.entry(what).or_default();
        *before = self.limits.pressure(free, *before);
        let pressure = *before;
        let detail = (pressure > Pressure::None).then(|| self.limits.fault(&path.to_string_lossy(), free));
        self.shared.faults.set(NodeFaultKind::Disk, what, detail);
        Some((pressure, free))
    }

    /// Removes images of apps that nothing uses and no order names.
    async fn clean(&self) -> Result<(), EngineError> {
        let label = HashMap::from([("label".to_owned(), vec![IMAGE_APP_LABEL.to_owned()])]);
        let options = ListImagesOptions { filters: Some(label), ..ListImagesOptions::default() };
        let engine = &self.shared.engine;
        let images = engine.call("list images of apps", |d| async move { d.list_images(Some(options)).await }).await?;
        let everything = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let used = self.containers(everything).await?.into_iter().filter_map(|summary| summary.image_id).collect();
        let now = dinp_common::api::unix_millis() / 1000;
        for name in unpinned(&images, &used, &self.ordered(), now) {
            let act = format!("remove image {name}");
            let image = name.clone();
            let remove =
                engine.call(act, |d| async move { d.remove_image(&image, None::<RemoveImageOptions>, None).await });
            match remove.await {
                Ok(_) => tracing::info!(image = name, "an image that nobody needs was removed, space is short"),
                // Somebody needs it after all, or was quicker.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                // The next one would wait in vain as well.
                Err(error) if error.is_of_the_engine() => return Err(error),
                Err(error) => {
                    tracing::warn!(image = name, error = %ErrorChain(&error), "an image that nobody needs cannot be removed");
                }
            }
        }
        Ok(())
    }

    fn ordered(&self) -> BTreeSet<String> {
        self.shared.orders.read(|kept| {
            let specs = kept.iter().flat_map(|kept| &kept.orders.run);
            specs.map(container::image_name).collect()
        })
    }

    /// Stops the instance that has written most.
    async fn stop_one(&mut self, free: u64) -> Result<(), EngineError> {
        if let Some(found) = offender(&self.writers().await?) {
            self.stopped = Some(Instant::now());
            let message = Message::Evict(found.instance.clone(), found.reason(free));
            // The node's task ends only with the agent.
            self.node.send(message).await.ok();
        }
        Ok(())
    }

    /// Our containers with what each has written.
    async fn writers(&self) -> Result<Vec<Writer>, EngineError> {
        let label = vec![format!("{CLUSTER}={}", self.shared.bundle.cluster)];
        let ours = ListContainersOptions {
            all: true,
            size: true,
            filters: Some(HashMap::from([("label".to_owned(), label)])),
            ..ListContainersOptions::default()
        };
        Ok(self.containers(ours).await?.iter().filter_map(writer).collect())
    }

    async fn containers(&self, options: ListContainersOptions) -> Result<Vec<ContainerSummary>, EngineError> {
        let list = |d: bollard::Docker| async move { d.list_containers(Some(options)).await };
        self.shared.engine.call_within(SIZES, "list containers", list).await
    }
}

fn writer(summary: &ContainerSummary) -> Option<Writer> {
    let instance = summary.labels.as_ref()?.get(INSTANCE)?.parse().ok()?;
    Some(Writer::of(instance, summary))
}

fn is_due(last: Option<Instant>, period: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= period)
}

/// Bytes that an ordinary user may still write there; none where it cannot be told.
fn free(path: &Path) -> Option<u64> {
    let found = statvfs(path).ok()?;
    Some(found.blocks_available() as u64 * found.fragment_size() as u64)
}
