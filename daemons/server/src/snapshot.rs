//! Desired state from MySQL: whole, in one moment of the database, or not at all.
//!
//! What was not read whole is an error, and the desired state of before stays in force: absence is never an order.

use crate::core::{Desired, DesiredApp, DesiredDeployment, DesiredNode};
use dinp_common::api::people::AppState;
use dinp_common::auth::SecretHash;
use dinp_common::model::{AppName, DomainName, NodeName, ReleaseSpec};
use dinp_common::seal::OpeningKey;
use dinp_common::store::app::AppRow;
use dinp_common::store::deployment::UnderWay;
use dinp_common::store::node::NodeRow;
use dinp_common::store::{self, StoreError};
use mysql_async::{Conn, Transaction};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Releases of an app, newest first, that are read beside those that are in force or on their way.
const RELEASES_KEPT: u32 = 10;

/// Environment values, opened, by the id of their release. A version never changes once it is written; but after a
/// restore of the database its number comes again, and an id does not.
pub type Environments = HashMap<u64, Arc<BTreeMap<String, String>>>;

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
    let mut tx = store::begin_snapshot(conn).await?;
    let snapshot = read(&mut tx, key, known).await?;
    tx.commit().await.map_err(StoreError::doing("end a snapshot"))?;
    Ok(snapshot)
}

async fn read(tx: &mut Transaction<'_>, key: &OpeningKey, known: &Environments) -> Result<Snapshot, StoreError> {
    let cluster = store::cluster::id(tx).await?;
    let cluster = cluster.ok_or_else(|| corrupt("table cluster", "no row: run dinp setup control"))?;
    let revision = store::current_revision(tx).await?;
    let rows = store::app::all(tx).await?;
    let in_force = |app: &&AppRow| app.deleted && app.release_id.is_some();
    let deleted_in_force = rows.iter().filter(in_force).map(|app| app.name.clone()).collect();
    let releases = store::release::may_run(tx, RELEASES_KEPT).await?;
    let deployments = store::deployment::under_way(tx).await?;
    let domains = store::domain::all(tx).await?;
    let apps = apps_of(rows, releases, deployments, domains);
    let Nodes { wanted, deleted, secrets } = nodes_of(store::node::all(tx).await?);
    let environments = environments_of(tx, &apps, key, known).await?;
    let desired = Desired { revision, apps, nodes: wanted, deleted_nodes: deleted };
    Ok(Snapshot { cluster, desired, secrets, environments, deleted_in_force })
}

/// Apps with what belongs to each; what belongs to none has lost its app's row.
fn apps_of(
    rows: Vec<AppRow>,
    releases: Vec<(AppName, ReleaseSpec)>,
    deployments: Vec<UnderWay>,
    domains: Vec<(AppName, DomainName)>,
) -> BTreeMap<AppName, DesiredApp> {
    let mut apps: BTreeMap<_, _> = rows.into_iter().map(|row| (row.name.clone(), desired_app(row))).collect();
    for (app, release) in releases {
        if let Some(app) = apps.get_mut(&app) {
            app.releases.insert(release.id, release);
        }
    }
    for row in deployments {
        // In the order of their ids: the newest one counts.
        if let Some(app) = apps.get_mut(&row.app)
            && let Some(older) = app.deployment.replace(desired_deployment(&row))
        {
            app.older_deployments.push(older.id);
        }
    }
    for (app, domain) in domains {
        if let Some(app) = apps.get_mut(&app) {
            app.domains.push(domain);
        }
    }
    apps
}

fn desired_app(row: AppRow) -> DesiredApp {
    DesiredApp {
        name: row.name,
        started: row.state == AppState::Started,
        deleted: row.deleted,
        instances: row.instances,
        release: row.release_id,
        domains: Vec::new(),
        releases: BTreeMap::new(),
        deployment: None,
        older_deployments: Vec::new(),
    }
}

fn desired_deployment(row: &UnderWay) -> DesiredDeployment {
    DesiredDeployment {
        id: row.id,
        release: row.release_id,
        cancel: row.cancel,
        state: row.state,
        previous: row.previous_release_id,
    }
}

#[derive(Default)]
struct Nodes {
    wanted: BTreeMap<NodeName, DesiredNode>,
    deleted: BTreeSet<NodeName>,
    secrets: HashMap<NodeName, SecretHash>,
}

fn nodes_of(rows: Vec<NodeRow>) -> Nodes {
    let mut nodes = Nodes::default();
    for row in rows {
        if row.deleted {
            nodes.deleted.insert(row.name);
            continue;
        }
        nodes.secrets.insert(row.name.clone(), row.secret_hash);
        let NodeRow { name, address, zone, cordoned, registered, .. } = row;
        let node = DesiredNode { name, address, zone, cordoned, registered };
        nodes.wanted.insert(node.name.clone(), node);
    }
    nodes
}

async fn environments_of(
    tx: &mut Transaction<'_>,
    apps: &BTreeMap<AppName, DesiredApp>,
    key: &OpeningKey,
    known: &Environments,
) -> Result<Environments, StoreError> {
    let mut environments = Environments::new();
    for app in apps.values() {
        let mut opened = BTreeMap::new();
        for release in app.releases.values().filter(|release| release.env_version > 0) {
            let version = release.env_version;
            let values = match known.get(&release.id).or_else(|| opened.get(&version)) {
                Some(values) => values.clone(),
                None => Arc::new(environment(tx, &app.name, version, key).await?),
            };
            opened.insert(version, values.clone());
            environments.insert(release.id, values);
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
    let sealed = store::env::sealed(tx, app, version).await?;
    sealed
        .into_iter()
        .map(|(name, sealed)| {
            let open = key.open(&sealed);
            let value = open.map_err(|error| corrupt(format!("env {app} version {version} name {name}"), error))?;
            Ok((name, value))
        })
        .collect()
}

fn corrupt(object: impl Into<String>, problem: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { object: object.into(), problem: problem.to_string() }
}
