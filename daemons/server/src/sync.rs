//! Desired state from MySQL: whole, in one snapshot, or not at all.
//!
//! The revision row is looked at five times a second (and at once after a hint); when it has moved, or a minute has
//! gone, all rows are read in one consistent snapshot and counted against the same snapshot. A snapshot that was
//! not read whole is an error, and the desired state of before stays in force: absence is never an order.

use crate::core::{Desired, DesiredApp, DesiredDeployment, DesiredNode, ReleaseSpec};
use crate::driver::{Handle, Input};
use dinp_common::api::people::DeploymentState;
use dinp_common::auth::SecretHash;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::model::{AppName, DomainName, HealthCheck, NodeName, Resources, Timing};
use dinp_common::seal::OpeningKey;
use dinp_common::store::{self, StoreError};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Pool, Row, Transaction, TxOpts};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Releases of an app, newest first, that are read beside those that are in force or on their way.
const RELEASES_KEPT: u32 = 10;

/// An app and a version of its environment.
pub type EnvKey = (AppName, u32);

/// Environment values, opened. A version never changes once it is written.
pub type Environments = HashMap<EnvKey, Arc<BTreeMap<String, String>>>;

/// All of desired state at one revision.
pub struct Snapshot {
    /// Id of the cluster.
    pub cluster: String,
    /// What is wanted.
    pub desired: Desired,
    /// Hashes of the nodes' secrets.
    pub secrets: HashMap<NodeName, SecretHash>,
    /// Environments of all releases in `desired`.
    pub environments: Environments,
    /// Deleted apps that still name a release in force.
    pub deleted_in_force: Vec<AppName>,
}

/// Reads all of desired state. `known` are environments that were opened before.
pub async fn snapshot(conn: &mut Conn, key: &OpeningKey, known: &Environments) -> Result<Snapshot, StoreError> {
    let doing = StoreError::doing("begin a snapshot");
    let mut options = TxOpts::default();
    options.with_consistent_snapshot(true).with_readonly(true);
    options.with_isolation_level(mysql_async::IsolationLevel::RepeatableRead);
    let mut tx = conn.start_transaction(options).await.map_err(&doing)?;
    let snapshot = read(&mut tx, key, known).await?;
    tx.commit().await.map_err(StoreError::doing("end a snapshot"))?;
    Ok(snapshot)
}

async fn read(tx: &mut Transaction<'_>, key: &OpeningKey, known: &Environments) -> Result<Snapshot, StoreError> {
    let cluster: Option<String> = tx
        .query_first("SELECT cluster_id FROM cluster WHERE id = 1")
        .await
        .map_err(StoreError::doing("read the cluster id"))?;
    let cluster = cluster.ok_or_else(|| corrupt("table cluster", "no row: run dinp setup control"))?;
    let revision: Option<u64> = tx
        .query_first("SELECT rev FROM revision WHERE id = 1")
        .await
        .map_err(StoreError::doing("read the revision"))?;
    let revision = revision.ok_or_else(|| corrupt("table revision", "no row"))?;
    let mut deleted_in_force = Vec::new();
    let mut apps = BTreeMap::new();
    for app in apps_of(tx).await? {
        if app.deleted && app.release.is_some() {
            deleted_in_force.push(app.name.clone());
        }
        apps.insert(app.name.clone(), app);
    }
    for (app, release) in releases_of(tx).await? {
        if let Some(app) = apps.get_mut(&app) {
            app.releases.insert(release.id, release);
        }
    }
    for (app, deployment) in deployments_of(tx).await? {
        // In the order of their ids: the newest one counts.
        if let Some(app) = apps.get_mut(&app)
            && let Some(older) = app.deployment.replace(deployment)
        {
            app.older_deployments.push(older.id);
        }
    }
    for (app, domain) in domains_of(tx).await? {
        if let Some(app) = apps.get_mut(&app) {
            app.domains.push(domain);
        }
    }
    let Nodes { wanted, deleted, secrets } = nodes_of(tx).await?;
    let environments = environments_of(tx, &apps, key, known).await?;
    let desired = Desired { revision, apps, nodes: wanted, deleted_nodes: deleted };
    Ok(Snapshot { cluster, desired, secrets, environments, deleted_in_force })
}

async fn apps_of(tx: &mut Transaction<'_>) -> Result<Vec<DesiredApp>, StoreError> {
    let rows: Vec<(String, bool, bool, u32, Option<u64>)> = rows(
        tx,
        "app",
        "1 = 1",
        "SELECT name, state = 'started', deleted_at IS NOT NULL, instances, release_id FROM app",
    )
    .await?;
    rows.into_iter()
        .map(|(name, started, deleted, instances, release)| {
            Ok(DesiredApp {
                name: parse("app", &name, &name)?,
                started,
                deleted,
                instances,
                release,
                domains: Vec::new(),
                releases: BTreeMap::new(),
                deployment: None,
                older_deployments: Vec::new(),
            })
        })
        .collect()
}

async fn releases_of(tx: &mut Transaction<'_>) -> Result<Vec<(AppName, ReleaseSpec)>, StoreError> {
    let doing = StoreError::doing("read releases");
    let rows: Vec<Row> = tx
        .exec(
            "SELECT r.id, r.app, r.number, r.image, CAST(r.command AS CHAR) AS command, r.memory_mb, r.cpu_millis, \
             r.cpu_limit_millis, CAST(r.health AS CHAR) AS health, CAST(r.timing AS CHAR) AS timing, \
             r.env_version \
             FROM `release` r JOIN app a ON a.name = r.app \
             WHERE r.id = a.release_id \
             OR r.number + ? > (SELECT MAX(n.number) FROM `release` n WHERE n.app = r.app) \
             OR EXISTS (SELECT 1 FROM deployment d WHERE d.app = r.app AND r.id IN (d.release_id, d.previous_release_id) \
             AND d.state IN ('pending', 'rolling', 'verifying', 'rolling_back'))",
            (RELEASES_KEPT,),
        )
        .await
        .map_err(&doing)?;
    rows.into_iter().map(|row| release_of(&row)).collect()
}

fn release_of(row: &Row) -> Result<(AppName, ReleaseSpec), StoreError> {
    let id: u64 = column(row, "release", "id")?;
    let object = format!("release {id}");
    let app: String = column(row, &object, "app")?;
    let image: String = column(row, &object, "image")?;
    let command: Option<String> = column(row, &object, "command")?;
    let health: Option<String> = column(row, &object, "health")?;
    let timing: Option<String> = column(row, &object, "timing")?;
    let release = ReleaseSpec {
        id,
        number: column(row, &object, "number")?,
        image: parse("release", id, &image)?,
        command: command.map(|text| json(&object, &text)).transpose()?,
        resources: Resources {
            memory_mb: column(row, &object, "memory_mb")?,
            cpu_millis: column(row, &object, "cpu_millis")?,
            cpu_limit_millis: column(row, &object, "cpu_limit_millis")?,
        },
        health: health.map(|text| json::<HealthCheck>(&object, &text)).transpose()?,
        timing: timing.map(|text| json::<Timing>(&object, &text)).transpose()?.unwrap_or_default(),
        env_version: column(row, &object, "env_version")?,
    };
    Ok((parse("release", id, &app)?, release))
}

async fn deployments_of(tx: &mut Transaction<'_>) -> Result<Vec<(AppName, DesiredDeployment)>, StoreError> {
    const UNDER_WAY: &str = "state IN ('pending', 'rolling', 'verifying', 'rolling_back')";
    let rows: Vec<(u64, String, u64, bool, String, Option<u64>)> = rows(
        tx,
        "deployment",
        UNDER_WAY,
        "SELECT id, app, release_id, request = 'cancel', state, previous_release_id FROM deployment",
    )
    .await?;
    let mut deployments = rows
        .into_iter()
        .map(|(id, app, release, cancel, state, previous)| {
            let state = match state.as_str() {
                "pending" => DeploymentState::Pending,
                "rolling" => DeploymentState::Rolling,
                "verifying" => DeploymentState::Verifying,
                _ => DeploymentState::RollingBack,
            };
            Ok((parse("deployment", id, &app)?, DesiredDeployment { id, release, cancel, state, previous }))
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    deployments.sort_by_key(|(_, deployment)| deployment.id);
    Ok(deployments)
}

async fn domains_of(tx: &mut Transaction<'_>) -> Result<Vec<(AppName, DomainName)>, StoreError> {
    let rows: Vec<(String, String)> = rows(tx, "domain", "deleted_at IS NULL", "SELECT app, name FROM domain").await?;
    let mut domains = rows
        .into_iter()
        .map(|(app, name)| Ok((parse("domain", &name, &app)?, parse("domain", &name, &name)?)))
        .collect::<Result<Vec<_>, StoreError>>()?;
    domains.sort();
    Ok(domains)
}

/// Rows of table `node`.
#[derive(Default)]
struct Nodes {
    wanted: BTreeMap<NodeName, DesiredNode>,
    deleted: BTreeSet<NodeName>,
    secrets: HashMap<NodeName, SecretHash>,
}

async fn nodes_of(tx: &mut Transaction<'_>) -> Result<Nodes, StoreError> {
    let rows: Vec<(String, String, String, Vec<u8>, bool, bool)> = rows(
        tx,
        "node",
        "1 = 1",
        "SELECT name, address, zone, secret_hash, state = 'cordoned', deleted_at IS NOT NULL FROM node",
    )
    .await?;
    let mut nodes = Nodes::default();
    for (name, address, zone, hash, cordoned, deleted) in rows {
        let node: NodeName = parse("node", &name, &name)?;
        if deleted {
            nodes.deleted.insert(node);
            continue;
        }
        let hash =
            hash.try_into().map_err(|_| corrupt(format!("node {name}"), "a secret's hash that is not 32 bytes"))?;
        nodes.secrets.insert(node.clone(), hash);
        nodes.wanted.insert(node.clone(), DesiredNode { name: node, address, zone, cordoned });
    }
    Ok(nodes)
}

async fn environments_of(
    tx: &mut Transaction<'_>,
    apps: &BTreeMap<AppName, DesiredApp>,
    key: &OpeningKey,
    known: &Environments,
) -> Result<Environments, StoreError> {
    let mut environments = Environments::new();
    for app in apps.values() {
        for version in app.releases.values().map(|release| release.env_version).filter(|version| *version > 0) {
            let env_key = (app.name.clone(), version);
            if environments.contains_key(&env_key) {
                continue;
            }
            let values = match known.get(&env_key) {
                Some(values) => values.clone(),
                None => Arc::new(environment(tx, &app.name, version, key).await?),
            };
            environments.insert(env_key, values);
        }
    }
    Ok(environments)
}

async fn environment(
    tx: &mut Transaction<'_>,
    app: &AppName,
    version: u32,
    key: &OpeningKey,
) -> Result<BTreeMap<String, String>, StoreError> {
    let rows: Vec<(String, Vec<u8>)> = tx
        .exec("SELECT name, sealed FROM env WHERE app = ? AND version = ?", (app.as_str(), version))
        .await
        .map_err(StoreError::doing("read an environment"))?;
    rows.into_iter()
        .map(|(name, sealed)| {
            let object = || format!("env {app} version {version} name {name}");
            let value = key.open(&sealed).map_err(|error| corrupt(object(), error))?;
            Ok((name, value))
        })
        .collect()
}

/// Reads rows, and counts them against what the same snapshot says there are. Table, condition and query are this
/// file's own text.
async fn rows<R: FromRow + Send + 'static>(
    tx: &mut Transaction<'_>,
    table: &'static str,
    condition: &str,
    query: &str,
) -> Result<Vec<R>, StoreError> {
    let doing = StoreError::doing("read desired state");
    let rows: Vec<R> = tx.query(format!("{query} WHERE {condition}")).await.map_err(&doing)?;
    let expected: Option<u64> =
        tx.query_first(format!("SELECT COUNT(*) FROM `{table}` WHERE {condition}")).await.map_err(&doing)?;
    let (got, expected) = (rows.len() as u64, expected.unwrap_or_default());
    if got == expected { Ok(rows) } else { Err(StoreError::Incomplete { table, got, expected }) }
}

fn column<T: mysql_async::prelude::FromValue>(row: &Row, object: &str, name: &str) -> Result<T, StoreError> {
    match row.get_opt(name) {
        Some(Ok(value)) => Ok(value),
        _ => Err(corrupt(object, format!("a column {name} that cannot be read"))),
    }
}

fn parse<T>(table: &str, key: impl Display, text: &str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error| corrupt(format!("{table} {key}"), error))
}

fn json<T: serde::de::DeserializeOwned>(object: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(object, error))
}

fn corrupt(object: impl Into<String>, problem: impl Display) -> StoreError {
    StoreError::Corrupt { object: object.into(), problem: problem.to_string() }
}

/// Time between two looks at the revision.
const POLL: Duration = Duration::from_millis(200);
/// Time between two full reads though nothing seems to have changed.
const RESYNC: Duration = Duration::from_secs(60);
/// Longest wait for the database.
const ANSWER: Duration = Duration::from_secs(10);

/// Keeps the driver supplied with desired state.
pub struct Sync {
    /// The database.
    pub pool: Pool,
    /// Opens environment values.
    pub key: OpeningKey,
    /// Wakes the poll.
    pub hint: Arc<Notify>,
    /// Who is told.
    pub handle: Handle,
    /// Hashes of the nodes' secrets, for the API.
    pub secrets: NodeSecrets,
    /// Where to say when the database still showed what was handed over last.
    pub stood_at: watch::Sender<Option<Instant>>,
}

/// Hashes of the nodes' secrets as they were last read.
pub type NodeSecrets = Arc<std::sync::RwLock<HashMap<NodeName, SecretHash>>>;

impl Sync {
    /// Follows desired state until shutdown.
    pub async fn run(self, lifecycle: Lifecycle) {
        let condition = lifecycle.condition("desired state");
        let heartbeat = lifecycle.heartbeat("desired state", ANSWER * 3);
        let shutdown = lifecycle.shutdown();
        let mut read: Option<(u64, Instant)> = None;
        let mut environments = Environments::new();
        loop {
            let asked = Instant::now();
            let next = self.poll(read, &environments);
            match tokio::time::timeout(ANSWER, next).await {
                Ok(Ok(None)) => {
                    self.stood_at.send_replace(Some(asked));
                    condition.ok();
                }
                Ok(Ok(Some(snapshot))) => {
                    read = Some((snapshot.desired.revision, Instant::now()));
                    environments = snapshot.environments.clone();
                    self.know_nodes(&snapshot);
                    condition.ok();
                    if self.handle.send(Input::Snapshot(Box::new(snapshot))).await.is_err() {
                        return;
                    }
                }
                Ok(Err(error)) => condition.missing(&ErrorChain(&error).to_string()),
                Err(_) => condition.missing("no answer from MySQL in time"),
            }
            heartbeat.beat();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
                () = self.hint.notified() => {}
            }
        }
    }

    /// A node that has lost its row stays known until it is deleted: a missing row is no order.
    fn know_nodes(&self, snapshot: &Snapshot) {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.retain(|node, _| !snapshot.desired.deleted_nodes.contains(node));
        secrets.extend(snapshot.secrets.clone());
    }

    async fn poll(&self, read: Option<(u64, Instant)>, known: &Environments) -> Result<Option<Snapshot>, StoreError> {
        let mut conn = store::connect(&self.pool, ANSWER).await?;
        if let Some((revision, at)) = read
            && at.elapsed() < RESYNC
            && store::current_revision(&mut conn).await? == revision
        {
            return Ok(None);
        }
        snapshot(&mut conn, &self.key, known).await.map(Some)
    }
}
