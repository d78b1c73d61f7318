//! A router's side of the table. The account can only read.

use super::{Change, Head, Keys, RouteError, Table, client, parse_head};
use crate::credentials::Secret;
use crate::model::{AppName, Version};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig};
use std::collections::HashMap;
use std::time::Duration;

/// Longest wait for something new in one call of [`Reader::next`].
const BLOCK: Duration = Duration::from_secs(5);

/// Records read in one step: few round trips, and Redis is kept from others for less than a millisecond each time.
const STEP: usize = 500;

/// A whole table of one version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its version.
    pub version: Version,
    /// The apps.
    pub table: Table,
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Version that it makes.
    pub id: Version,
    /// Version that it applies to.
    pub prev: Version,
    /// What changes.
    pub changes: Vec<Change>,
}

/// Reads the table over one connection. After an error, connect again.
pub struct Reader {
    connection: MultiplexedConnection,
    keys: Keys,
}

impl Reader {
    /// Connects.
    pub async fn connect(url: &str, user: &str, password: &Secret, cluster: &str) -> Result<Self, RouteError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(BLOCK + Duration::from_secs(3)));
        let connection = client(url, user, password)?
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(RouteError::doing("connect"))?;
        Ok(Self { connection, keys: Keys::new(cluster) })
    }

    /// The head, if there is one.
    pub async fn head(&mut self) -> Result<Option<Head>, RouteError> {
        let fields: HashMap<String, String> =
            self.connection.hgetall(&self.keys.head).await.map_err(RouteError::doing("read the head of the routes"))?;
        Ok(parse_head(&fields))
    }

    /// Reads the whole table, and brings it up to the log's end; none while Redis has no complete one.
    ///
    /// Records are read in steps while the leader may go on, so each is at least as new as the head read first;
    /// the log is applied from there, which makes them all as new as its last entry.
    pub async fn load(&mut self) -> Result<Option<Snapshot>, RouteError> {
        let Some(Head { version, complete: true, .. }) = self.head().await? else { return Ok(None) };
        let mut table = Table::new();
        let mut scan = redis::cmd("HSCAN");
        scan.arg(&self.keys.apps).cursor_arg(0).arg("COUNT").arg(STEP);
        let mut records = scan
            .iter_async::<(String, String)>(&mut self.connection)
            .await
            .map_err(RouteError::doing("read the routes"))?;
        while let Some(record) = records.next_item().await {
            let (app, text) = record.map_err(RouteError::doing("read the routes"))?;
            let routes =
                serde_json::from_str(&text).map_err(|source| RouteError::Corrupt { key: app.clone(), source })?;
            if let Ok(app) = app.parse::<AppName>() {
                table.insert(app, routes);
            }
        }
        drop(records);
        let mut snapshot = Snapshot { version, table };
        for entry in self.entries_after(version, None).await? {
            if entry.prev == Version::ZERO {
                return Ok(None);
            }
            snapshot.version = entry.id;
            apply(&mut snapshot.table, entry.changes);
        }
        Ok(Some(snapshot))
    }

    /// The entries after a version, waiting up to 5 s for the first. Empty: nothing new in that time.
    pub async fn next(&mut self, after: Version) -> Result<Vec<Entry>, RouteError> {
        self.entries_after(after, Some(BLOCK)).await
    }

    async fn entries_after(&mut self, after: Version, block: Option<Duration>) -> Result<Vec<Entry>, RouteError> {
        let mut options = StreamReadOptions::default().count(1000);
        if let Some(block) = block {
            options = options.block(block.as_millis() as usize);
        }
        let reply: Option<StreamReadReply> = self
            .connection
            .xread_options(&[&self.keys.log], &[after.to_string()], &options)
            .await
            .map_err(RouteError::doing("read the log of the routes"))?;
        let ids = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        ids.map(|id| parse_entry(&id)).collect()
    }
}

fn parse_entry(id: &StreamId) -> Result<Entry, RouteError> {
    let version = |text: &str| text.parse::<Version>().unwrap_or_default();
    let changes: String = id.get("changes").unwrap_or_default();
    let changes =
        serde_json::from_str(&changes).map_err(|source| RouteError::Corrupt { key: id.id.clone(), source })?;
    let prev: String = id.get("prev").unwrap_or_default();
    Ok(Entry { id: version(&id.id), prev: version(&prev), changes })
}

/// Applies changes to a table.
pub fn apply(table: &mut Table, changes: Vec<Change>) {
    for Change { app, routes } in changes {
        match routes {
            Some(routes) => table.insert(app, routes),
            None => table.remove(&app),
        };
    }
}
