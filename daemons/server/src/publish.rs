//! The leader's table in Redis.

use dinp_common::credentials::Secret;
use dinp_common::model::Version;
use dinp_common::routes::{Publisher, RouteError, Table, difference};
use std::collections::HashMap;
use std::time::Duration;

/// Longest wait for Redis: decisions wait for it, and what does not come in time is tried again.
const ANSWER: Duration = Duration::from_millis(800);

/// Publishes the table of one leadership under its epoch. Not connected until the first use, and again after a failure.
pub struct Routes {
    url: String,
    user: String,
    password: Secret,
    cluster: String,
    epoch: u64,
    seq: u64,
    connection: Option<Publisher>,
    /// What Redis holds, as far as this leader knows.
    known: Option<(Version, Table)>,
}

impl Routes {
    /// A publisher that has no epoch yet.
    pub fn new(url: String, user: String, password: Secret, cluster: String) -> Self {
        Self { url, user, password, cluster, epoch: 0, seq: 0, connection: None, known: None }
    }

    /// Begins an epoch: what Redis holds has to be looked at again.
    pub fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.seq = 0;
        self.known = None;
    }

    /// The table that the leader before left in Redis; empty where there is none.
    pub async fn adopt(&mut self) -> Result<Table, RouteError> {
        self.in_time(async |routes| {
            let connection = routes.connection().await?;
            let head = connection.head().await?;
            let records = connection.read_all().await?;
            let table = understood(&records);
            if let Some(head) = head.filter(|head| head.complete && records.len() == table.len()) {
                routes.known = Some((head.version, table.clone()));
            }
            Ok(table)
        })
        .await
    }

    /// Publishes a table and returns its version. [`RouteError::Fenced`]: somebody has published in a higher epoch.
    pub async fn publish(&mut self, table: &Table) -> Result<Version, RouteError> {
        self.in_time(async |routes| routes.write(table).await).await
    }

    /// Compares Redis with what was published, and writes it anew where they differ. The new version, if so.
    pub async fn mend(&mut self) -> Result<Option<Version>, RouteError> {
        let Some((version, table)) = self.known.clone().filter(|(version, _)| version.epoch == self.epoch) else {
            return Ok(None);
        };
        self.in_time(async |routes| {
            let connection = routes.connection().await?;
            let head = connection.head().await?;
            let records = connection.read_all().await?;
            let same_head = head.is_some_and(|head| head.complete && head.version == version);
            if same_head && records.len() == table.len() && understood(&records) == table {
                return Ok(None);
            }
            routes.known = None;
            routes.write(&table).await.map(Some)
        })
        .await
    }

    async fn write(&mut self, table: &Table) -> Result<Version, RouteError> {
        // A number is used once, even if it is not known whether Redis has seen it.
        self.seq += 1;
        let id = Version::new(self.epoch, self.seq);
        let known = self.known.take();
        let connection = self.connection().await?;
        let followed = match &known {
            Some((prev, before)) => connection.publish(*prev, id, &difference(before, table)).await,
            None => Err(RouteError::Gap),
        };
        match followed {
            Err(RouteError::Gap) => connection.rewrite(id, table).await?,
            other => other?,
        }
        self.known = Some((id, table.clone()));
        Ok(id)
    }

    async fn connection(&mut self) -> Result<&mut Publisher, RouteError> {
        if self.connection.is_none() {
            let connected = Publisher::connect(&self.url, &self.user, &self.password, &self.cluster).await?;
            self.connection = Some(connected);
        }
        Ok(self.connection.as_mut().expect("it was set above"))
    }

    async fn in_time<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, RouteError>,
    ) -> Result<T, RouteError> {
        let result = match tokio::time::timeout(ANSWER, work(self)).await {
            Ok(result) => result,
            Err(_) => Err(RouteError::Timeout { millis: ANSWER.as_millis() as u64 }),
        };
        if result.is_err() {
            self.connection = None;
        }
        result
    }
}

fn understood(records: &HashMap<String, Option<dinp_common::routes::AppRoutes>>) -> Table {
    records.values().flatten().map(|routes| (routes.app.clone(), routes.clone())).collect()
}
