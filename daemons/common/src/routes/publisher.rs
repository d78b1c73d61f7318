//! The leader's side of the table.

use super::{Change, Head, Keys, RouteError, Signature, Table, client, parse_head};
use crate::api::ProvedRevision;
use crate::credentials::Secret;
use crate::model::{AppName, Version};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Script};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Entries that the log keeps. A router that is further behind reads the whole table.
const LOG_LENGTH: usize = 10_000;
/// Records written by one call while the table is rewritten.
const REWRITE_BATCH: usize = 500;

/// XADD first: Redis refuses an id that is not higher than the last, and then nothing else happens. Before it, only a
/// look: changes to a table that Redis does not have (flushed, or another leader's) would make half a table.
/// ARGV: id, prev, epoch, seq, complete, changes in JSON, log length, holder, proof, revision and its proof, then app and
/// record (or "") in turn.
const PUBLISH: &str = r"
if ARGV[5] == '1' then
  local head = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'complete')
  if head[3] ~= '1' or head[1] .. '-' .. head[2] ~= ARGV[2] then
    return 0
  end
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], ARGV[1], 'prev', ARGV[2], 'changes', ARGV[6])
for i = 12, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[2], 'epoch', ARGV[3], 'seq', ARGV[4], 'complete', ARGV[5],
  'holder', ARGV[8], 'proof', ARGV[9], 'revision', ARGV[10], 'revision_proof', ARGV[11])
return 1
";

/// Goes on with a rewrite, as long as nobody else has published since.
/// ARGV: epoch, seq, complete, then app and record (or "") in turn.
const CONTINUE: &str = r"
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] or redis.call('HGET', KEYS[2], 'seq') ~= ARGV[2] then
  return 0
end
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[2], 'complete', ARGV[3])
return 1
";

/// Notes a higher revision beside a table that is in force as it is.
/// ARGV: epoch, seq, revision, its proof.
const NOTE: &str = r"
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] or redis.call('HGET', KEYS[1], 'seq') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'revision', ARGV[3], 'revision_proof', ARGV[4])
return 1
";

/// Writes the table. Every write is fenced by its version.
pub struct Publisher {
    connection: ConnectionManager,
    keys: Keys,
    publish: Script,
    proceed: Script,
    note: Script,
    signature: Signature,
}

impl Publisher {
    /// Connects; later losses of the connection are mended by the next call.
    pub async fn connect(url: &str, user: &str, password: &Secret, cluster: &str) -> Result<Self, RouteError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(2)));
        let connection = client(url, user, password)?
            .get_connection_manager_with_config(config)
            .await
            .map_err(RouteError::doing("connect"))?;
        Ok(Self {
            connection,
            keys: Keys::new(cluster),
            publish: Script::new(PUBLISH),
            proceed: Script::new(CONTINUE),
            note: Script::new(NOTE),
            signature: Signature::default(),
        })
    }

    /// What goes into the head with each table from now on.
    pub fn sign(&mut self, signature: Signature) {
        self.signature = signature;
    }

    /// The version that Redis has, if it has one.
    pub async fn head(&mut self) -> Result<Option<Head>, RouteError> {
        let fields: HashMap<String, String> =
            self.connection.hgetall(&self.keys.head).await.map_err(RouteError::doing("read the head of the routes"))?;
        Ok(parse_head(&fields))
    }

    /// Publishes changes as version `id`, which follows `prev`. [`RouteError::Gap`]: Redis does not have `prev`, and
    /// the table must be rewritten.
    pub async fn publish(&mut self, prev: Version, id: Version, changes: &[Change]) -> Result<(), RouteError> {
        self.write(prev, id, true, changes).await
    }

    /// Notes the highest revision in the head of the table `id`; where another table is in force by now, nothing happens.
    pub async fn note_revision(&mut self, id: Version, highest: &ProvedRevision) -> Result<(), RouteError> {
        let mut call = self.note.prepare_invoke();
        call.key(&self.keys.head).arg(id.epoch).arg(id.seq).arg(highest.number).arg(&highest.proof);
        let _: i64 = call.invoke_async(&mut self.connection).await.map_err(RouteError::doing("note the revision"))?;
        Ok(())
    }

    /// Forgets the log with its ids. For what no server has written: it would refuse every id for ever.
    pub async fn forget_log(&mut self) -> Result<(), RouteError> {
        self.connection.del(&self.keys.log).await.map_err(RouteError::doing("forget the log of the routes"))
    }

    /// Writes the whole table as version `id`, whatever was there. Routers keep what they have until it is whole.
    pub async fn rewrite(&mut self, id: Version, table: &Table) -> Result<(), RouteError> {
        let present: BTreeSet<String> = self
            .connection
            .hkeys::<_, Vec<String>>(&self.keys.apps)
            .await
            .map_err(RouteError::doing("list the routes"))?
            .into_iter()
            .collect();
        self.write(Version::ZERO, id, false, &[]).await?;
        let gone =
            present.iter().filter(|app| !table.contains_key(app.as_str())).map(|app| (app.clone(), String::new()));
        let records = table.iter().map(|(app, routes)| (app.to_string(), to_json(routes)));
        let all: Vec<(String, String)> = gone.chain(records).collect();
        for batch in all.chunks(REWRITE_BATCH) {
            self.proceed(id, false, batch).await?;
        }
        self.proceed(id, true, &[]).await
    }

    /// Reads the apps' records as they stand, for the leader's comparison with its own table. A record that cannot
    /// be understood comes as none.
    pub async fn read_all(&mut self) -> Result<HashMap<String, Option<super::AppRoutes>>, RouteError> {
        let raw: HashMap<String, String> =
            self.connection.hgetall(&self.keys.apps).await.map_err(RouteError::doing("read the routes"))?;
        Ok(raw.into_iter().map(|(app, text)| (app, serde_json::from_str(&text).ok())).collect())
    }

    async fn write(
        &mut self,
        prev: Version,
        id: Version,
        complete: bool,
        changes: &[Change],
    ) -> Result<(), RouteError> {
        let Signature { holder, proof, highest_revision } = &self.signature;
        let mut call = self.publish.prepare_invoke();
        call.key(&self.keys.apps).key(&self.keys.head).key(&self.keys.log);
        call.arg(id.to_string()).arg(prev.to_string()).arg(id.epoch).arg(id.seq).arg(u8::from(complete));
        call.arg(to_json(&changes)).arg(LOG_LENGTH);
        call.arg(holder).arg(proof).arg(highest_revision.number).arg(&highest_revision.proof);
        for Change { app, routes } in changes {
            call.arg(app.as_str()).arg(routes.as_ref().map(to_json).unwrap_or_default());
        }
        let done: Result<i64, _> = call.invoke_async(&mut self.connection).await;
        match done {
            Ok(0) => Err(RouteError::Gap),
            Ok(_) => Ok(()),
            Err(error) if error.to_string().contains("equal or smaller") => Err(self.fenced().await?),
            Err(source) => Err(RouteError::Redis { act: "publish routes", source }),
        }
    }

    async fn proceed(&mut self, id: Version, complete: bool, records: &[(String, String)]) -> Result<(), RouteError> {
        let mut call = self.proceed.prepare_invoke();
        call.key(&self.keys.apps).key(&self.keys.head);
        call.arg(id.epoch).arg(id.seq).arg(u8::from(complete));
        for (app, record) in records {
            call.arg(app).arg(record);
        }
        let done: i64 =
            call.invoke_async(&mut self.connection).await.map_err(RouteError::doing("rewrite the routes"))?;
        if done == 1 {
            return Ok(());
        }
        Err(self.fenced().await?)
    }

    async fn fenced(&mut self) -> Result<RouteError, RouteError> {
        let highest = self.highest().await?;
        Ok(RouteError::Fenced { highest, head: self.head().await?.map(Box::new) })
    }

    /// Last id that the log has ever held.
    async fn highest(&mut self) -> Result<Version, RouteError> {
        let info: redis::streams::StreamInfoStreamReply = self
            .connection
            .xinfo_stream(&self.keys.log)
            .await
            .map_err(RouteError::doing("read the log of the routes"))?;
        Ok(info.last_generated_id.parse().unwrap_or_default())
    }
}

fn to_json(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("routes have string keys and no failing serializer")
}

/// The changes that turn one table into another.
pub fn difference(from: &Table, to: &Table) -> Vec<Change> {
    let changed = to.iter().filter(|(app, routes)| from.get(*app) != Some(routes));
    let changed = changed.map(|(app, routes)| Change { app: app.clone(), routes: Some(routes.clone()) });
    let gone = from.keys().filter(|app| !to.contains_key::<AppName>(app));
    changed.chain(gone.map(|app| Change { app: app.clone(), routes: None })).collect()
}
