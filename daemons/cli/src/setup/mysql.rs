//! Steps that are about MariaDB or MySQL on this machine: its settings, accounts, schema and the rows that a cluster
//! begins with.
//!
//! Accounts are made by the server's own root account over its socket, with the client program that comes with it: how
//! root proves itself there differs between MariaDB and MySQL. All else is done as `dinp_migrate`.

use super::error::SetupError;
use super::files::{self, needed_credential, random_hex, write_credential};
use super::grants;
use super::step::{State, Step, Steps, Task};
use super::system::{self, run};
use super::units::Unit;
use super::{files::File, system::Access};
use dinp_common::config::MysqlConfig;
use dinp_common::credentials::Secret;
use dinp_common::seal::OpeningKey;
use dinp_common::store::{self, StoreError, cluster, env};
use mysql_async::{Conn, Pool};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the database.
pub const DATABASE: &str = "dinp";
/// The account that owns the schema.
const MIGRATE: &str = "dinp_migrate";
/// Its credential.
const MIGRATE_CREDENTIAL: &str = "mysql-migrate";
/// Where the purge of dinp-server leaves the sealing key, because the database stays.
const KEPT_KEY: &str = "/var/lib/dinp/env-key";

/// The accounts of daemons, without `dinp_`.
pub fn daemons() -> impl Iterator<Item = &'static str> {
    store::grants::ACCOUNTS.iter().filter_map(|(account, _)| account.strip_prefix("dinp_"))
}

/// Settings of the database server, and its restart where they have changed.
pub fn server_steps(address: IpAddr) -> Steps {
    let (unit, directory) = flavour();
    let settings = directory.join("90-dinp.cnf");
    let drop_in = PathBuf::from(format!("/etc/systemd/system/{unit}.d/dinp.conf"));
    let reads = [settings.clone(), drop_in.clone()];
    vec![
        File::step(&settings, settings_text(address), Access::PUBLIC),
        File::step(&drop_in, DROP_IN, Access::PUBLIC),
        Unit::step(unit, reads),
    ]
}

/// The unit and the directory of drop-ins that is read last.
fn flavour() -> (&'static str, &'static Path) {
    let mariadb = Path::new("/etc/mysql/mariadb.conf.d");
    if mariadb.is_dir() {
        return ("mariadb.service", mariadb);
    }
    ("mysql.service", Path::new("/etc/mysql/mysql.conf.d"))
}

fn settings_text(address: IpAddr) -> String {
    format!(
        "# Written by `dinp setup`.\n\
         [mysqld]\n\
         bind-address = {address}\n\
         # Without a name server each new connection would wait for one.\n\
         skip-name-resolve\n\
         max_connections = 500\n\
         character-set-server = utf8mb4\n\
         # What was committed survives a power cut.\n\
         innodb_flush_log_at_trx_commit = 1\n\
         sync_binlog = 1\n"
    )
}

const DROP_IN: &str = "\
# Written by `dinp setup`: the address that it listens on must be there first, and it comes back by itself.
[Unit]
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Restart=on-failure
RestartSec=2
";

/// Database, accounts, schema, first rows.
pub fn data_steps(address: IpAddr) -> Steps {
    let mut steps: Steps = vec![Box::new(Accounts { address }), Box::new(Schema { address })];
    steps.push(Box::new(Grants));
    steps.push(Box::new(ClusterId { address }));
    steps.push(Box::new(SealingKey { address }));
    steps
}

/// Runs SQL as root of the database server and returns rows, tab separated.
async fn as_root(sql: &str) -> Result<String, SetupError> {
    let program = ["mariadb", "mysql"].into_iter().find(|name| system::find_program(name).is_some());
    let program = program.ok_or_else(|| {
        SetupError::Refused("neither mariadb nor mysql is installed: apt-get install mariadb-client".into())
    })?;
    let arguments = ["--no-defaults", "--protocol=socket", "--user=root", "--batch", "--skip-column-names"];
    run(program, &arguments, Some(&Secret::new(sql))).await
}

/// Text as it stands between quotes in SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A pool as the account that owns the schema.
pub fn migrate_pool(host: &str, port: u16) -> Result<Pool, SetupError> {
    let password = needed_credential(MIGRATE_CREDENTIAL)?;
    Ok(store::pool(host, port, DATABASE, MIGRATE, &password))
}

/// A connection as the account that owns the schema.
pub async fn connect(address: IpAddr) -> Result<Conn, SetupError> {
    let pool = migrate_pool(&address.to_string(), 3306)?;
    Ok(store::connect(&pool, Duration::from_secs(5)).await?)
}

/// Database and accounts, with the passwords of the credentials on this machine.
struct Accounts {
    address: IpAddr,
}

impl Accounts {
    fn all() -> impl Iterator<Item = (String, String)> {
        let daemons = daemons().map(|daemon| (format!("dinp_{daemon}"), format!("mysql-{daemon}")));
        std::iter::once((MIGRATE.to_owned(), MIGRATE_CREDENTIAL.to_owned())).chain(daemons)
    }

    async fn signs_in(&self, account: &str, password: &Secret) -> bool {
        // Without a database: an account that has no grants yet may use none.
        let pool = store::pool(&self.address.to_string(), 3306, "", account, password);
        store::connect(&pool, Duration::from_secs(5)).await.is_ok()
    }
}

impl Step for Accounts {
    fn name(&self) -> String {
        "MySQL database and accounts".into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let found = as_root(&format!("SHOW DATABASES LIKE {}", quoted(DATABASE))).await?;
            if found.trim().is_empty() {
                return Ok(State::due("new"));
            }
            for (account, id) in Self::all() {
                let Some(password) = files::credential(&id)? else {
                    return Ok(State::due(format!("new password of {account}")));
                };
                if !self.signs_in(&account, &password).await {
                    return Ok(State::due(format!("account {account}")));
                }
            }
            Ok(State::Ok)
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let mut sql =
                format!("CREATE DATABASE IF NOT EXISTS `{DATABASE}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n");
            for (account, id) in Self::all() {
                let password = quoted(needed_credential(&id)?.expose());
                sql += &format!("CREATE USER IF NOT EXISTS '{account}'@'%' IDENTIFIED BY {password};\n");
                sql += &format!("ALTER USER '{account}'@'%' IDENTIFIED BY {password};\n");
            }
            sql += &format!("GRANT ALL PRIVILEGES ON `{DATABASE}`.* TO '{MIGRATE}'@'%';\n");
            as_root(&sql).await.map(drop)
        })
    }
}

/// Tables, brought up to this version.
struct Schema {
    address: IpAddr,
}

impl Step for Schema {
    fn name(&self) -> String {
        "MySQL schema".into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let pending = store::pending_migrations(&mut connect(self.address).await?).await?;
            Ok(if pending.is_empty() { State::Ok } else { State::due(pending.join(", ")) })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            store::migrate(&migrate_pool(&self.address.to_string(), 3306)?).await?;
            Ok(())
        })
    }
}

/// What each daemon's account may do: what it must, and nothing more.
struct Grants;

impl Grants {
    /// Statements that bring the grants of all accounts to what they must be.
    async fn due() -> Result<Vec<String>, SetupError> {
        let mut due = Vec::new();
        for (account, wanted) in store::grants::ACCOUNTS {
            let shown = as_root(&format!("SHOW GRANTS FOR '{account}'@'%'")).await?;
            let has = grants::parse(&shown, DATABASE);
            let wants = grants::parse(&store::grants::statements(DATABASE, account, "%", wanted).join("\n"), DATABASE);
            due.extend(grants::changes(&has, &wants, DATABASE, account));
        }
        Ok(due)
    }
}

impl Step for Grants {
    fn name(&self) -> String {
        "MySQL grants".into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let due = Self::due().await?;
            Ok(if due.is_empty() { State::Ok } else { State::due(format!("{} statements", due.len())) })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { as_root(&(Self::due().await?.join(";\n") + ";\n")).await.map(drop) })
    }
}

/// Identity of the cluster, drawn once.
struct ClusterId {
    address: IpAddr,
}

impl Step for ClusterId {
    fn name(&self) -> String {
        "cluster id".into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let id = cluster::id(&mut connect(self.address).await?).await?;
            Ok(if id.is_some() { State::Ok } else { State::due("new") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { Ok(cluster::insert(&mut connect(self.address).await?, &random_hex(16)).await?) })
    }
}

/// The key that environment values are sealed to: the private half is the server's credential.
struct SealingKey {
    address: IpAddr,
}

impl SealingKey {
    /// The credential; where it is missing, what the purge of dinp-server kept of it.
    fn key() -> Result<Option<OpeningKey>, SetupError> {
        let text = match files::credential("env-key")? {
            Some(secret) => Some(secret.expose().to_owned()),
            None => system::read(Path::new(KEPT_KEY))?,
        };
        let Some(text) = text else { return Ok(None) };
        let key = OpeningKey::from_hex(text.trim());
        key.map(Some).map_err(|error| SetupError::Refused(format!("credential env-key: {error}")))
    }
}

impl Step for SealingKey {
    fn name(&self) -> String {
        "sealing key".into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let newest = env::sealing_key(&mut connect(self.address).await?).await?;
            match (Self::key()?, newest) {
                (Some(key), Some(newest)) if newest.public_key == key.public_key() => {
                    let there = files::credential("env-key")?.is_some();
                    Ok(if there { State::Ok } else { State::due(format!("taken back from {KEPT_KEY}")) })
                }
                // A new key would make all values that were sealed before unreadable, silently.
                (_, Some(_)) => Err(SetupError::Refused(
                    "the key in /etc/dinp/credentials/env-key is not the one that values in MySQL are sealed to: \
                     restore that file from the backup of the control machine"
                        .into(),
                )),
                (_, None) => Ok(State::due("new")),
            }
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let key = Self::key()?.unwrap_or_else(OpeningKey::generate);
            write_credential("env-key", key.to_hex().expose())?;
            let mut conn = connect(self.address).await?;
            if env::sealing_key(&mut conn).await?.is_some() {
                let kept = Path::new(KEPT_KEY);
                return std::fs::remove_file(kept).map_err(SetupError::file("remove", kept));
            }
            let first = env::SealingKey { id: 1, public_key: key.public_key() };
            Ok(env::insert_sealing_key(&mut conn, &first).await?)
        })
    }
}

/// The MySQL of another machine lets the server's account in, and its values are sealed to the server's key.
pub struct LetsIn {
    /// Where it is.
    pub settings: MysqlConfig,
    /// The password of the server's account.
    pub password: Secret,
    /// The private half of the sealing key.
    pub env_key: Secret,
}

impl Step for LetsIn {
    fn name(&self) -> String {
        format!("MySQL lets {} in", self.settings.user_for("server"))
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let MysqlConfig { host, port, database, .. } = &self.settings;
            let pool = store::pool(host, *port, database, &self.settings.user_for("server"), &self.password);
            let mut conn = store::connect(&pool, Duration::from_secs(5)).await?;
            let key = OpeningKey::from_hex(self.env_key.expose())
                .map_err(|error| SetupError::Refused(format!("credential env-key of the bundle: {error}")))?;
            let newest = needed(env::sealing_key(&mut conn).await?, "table sealing_key")?;
            if newest.public_key == key.public_key() {
                return Ok(State::Ok);
            }
            Err(SetupError::Refused(format!(
                "the bundle's env-key is not the one that values in MySQL at {host} are sealed to: issue the bundle again"
            )))
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// Whether there is an administrator.
pub async fn has_administrator(address: IpAddr) -> Result<bool, SetupError> {
    Ok(store::user::any_admin(&mut connect(address).await?).await?)
}

/// A row that must be there.
pub fn needed<T>(row: Option<T>, object: &str) -> Result<T, SetupError> {
    row.ok_or_else(|| StoreError::Corrupt { object: object.to_owned(), problem: "no row".into() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::Mysql;
    use mysql_async::prelude::Queryable;

    #[tokio::test]
    async fn a_second_server_is_let_in_with_the_key_of_the_first_and_with_no_other() {
        let mysql = Mysql::start().await;
        let root = mysql.database().await;
        mysql.account(&root, "dinp_server").await;
        let key = OpeningKey::generate();
        let mut conn = root.get_conn().await.unwrap();
        let database: Option<String> = conn.query_first("SELECT DATABASE()").await.unwrap();
        let newest = env::SealingKey { id: 1, public_key: key.public_key() };
        env::insert_sealing_key(&mut conn, &newest).await.unwrap();
        let step = |password: &str, key: &OpeningKey| LetsIn {
            settings: MysqlConfig {
                host: "127.0.0.1".into(),
                port: mysql.port(),
                database: database.clone().unwrap(),
                ..MysqlConfig::default()
            },
            password: Secret::new(password),
            env_key: Secret::new(key.to_hex().expose()),
        };
        assert_eq!(step("test", &key).name(), "MySQL lets dinp_server in");
        assert_eq!(step("test", &key).check().await.unwrap(), State::Ok);
        let error = step("test", &OpeningKey::generate()).check().await.unwrap_err().to_string();
        assert!(error.contains("env-key") && error.contains("127.0.0.1"), "{error}");
        assert!(step("wrong", &key).check().await.is_err());
    }

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quoted(r"a'b\c"), r"'a''b\\c'");
    }
}
