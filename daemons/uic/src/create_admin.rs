//! `dinp-uic create-admin`: the first person, or one more administrator.

use crate::passwords::{self, PasswordError, Passwords};
use crate::people::check_name;
use crate::{UicConfig, pool};
use dinp_common::api::uic::PlatformRole;
use dinp_common::config::Loaded;
use dinp_common::credentials::{self, CredentialError, Secret};
use dinp_common::error::ErrorChain;
use dinp_common::model::InvalidValue;
use dinp_common::store::audit::{self, AuditEvent};
use dinp_common::store::{self, StoreError, names, user};
use mysql_async::{Pool, TxOpts};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the database may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no administrator.
#[derive(Debug, thiserror::Error)]
pub enum CreateAdminError {
    /// Name or password break their rule.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// The database's or the new password cannot be read.
    #[error("read a password")]
    Credential(#[from] CredentialError),
    /// Standard input cannot be read.
    #[error("read the password from standard input")]
    Input(#[source] std::io::Error),
    /// The password cannot be hashed.
    #[error("create administrator {name}")]
    Hash {
        /// Who.
        name: String,
        /// Why not.
        #[source]
        source: PasswordError,
    },
    /// The database refused.
    #[error("create administrator {name}")]
    Store {
        /// Who.
        name: String,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The name belongs to somebody who is no administrator, or to a team.
    #[error("create administrator {name}: the name is taken by {by}")]
    Taken {
        /// The name.
        name: String,
        /// Whose it is.
        by: &'static str,
    },
}

/// Creates an administrator and prints what was done; changes nothing if there is one of this name.
pub async fn create_admin(
    loaded: Loaded<UicConfig>,
    name: &str,
    password_file: Option<&Path>,
) -> Result<(), CreateAdminError> {
    check_name("user name", name)?;
    let given = password_file.map(read_password).transpose()?;
    if let Some(password) = &given {
        passwords::check_new(password.expose())?;
    }
    let pool = pool(&loaded)?;
    let hashing = |source| CreateAdminError::Hash { name: name.to_owned(), source };
    let config = &loaded.daemon;
    let passwords = Passwords::new(config.password_memory_kib, config.password_passes, 1).map_err(hashing)?;
    let password = given.clone().unwrap_or_else(passwords::generate);
    let hash = passwords.hash(password.clone()).await.map_err(hashing)?;

    let deadline = Instant::now() + PATIENCE;
    let created = loop {
        match insert(&pool, name, &hash).await {
            Err(CreateAdminError::Store { source, .. }) if source.is_unavailable() && Instant::now() < deadline => {
                tracing::warn!(error = %ErrorChain(&source), "waiting for the database: {}", ErrorChain(&source));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => break other?,
        }
    };
    match (created, given) {
        (false, _) => println!("administrator {name} exists already; nothing was changed"),
        (true, Some(_)) => println!("administrator {name} created"),
        (true, None) => println!("administrator {name} created\npassword: {}", password.expose()),
    }
    Ok(())
}

fn read_password(path: &Path) -> Result<Secret, CreateAdminError> {
    if path != Path::new("-") {
        return Ok(credentials::read_secret_file(path)?);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(CreateAdminError::Input)?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
}

/// False if there is such an administrator already.
async fn insert(pool: &Pool, name: &str, hash: &str) -> Result<bool, CreateAdminError> {
    let taken = |by| CreateAdminError::Taken { name: name.to_owned(), by };
    let failed = |source| CreateAdminError::Store { name: name.to_owned(), source };
    let mut conn = store::connect(pool, Duration::from_secs(3)).await.map_err(failed)?;
    // All or nothing: of an administrator that exists, the password would never be printed.
    let mut tx = conn
        .start_transaction(TxOpts::default())
        .await
        .map_err(|error| failed(StoreError::doing("begin a change")(error)))?;
    user::lock_names(&mut tx).await.map_err(failed)?;
    match user::by_name(&mut tx, name).await.map_err(failed)? {
        Some(row) if row.role == PlatformRole::Admin => return Ok(false),
        Some(_) => return Err(taken("a user who is no administrator")),
        None => {}
    }
    if let Some(holder) = names::holder(&mut tx, name).await.map_err(failed)? {
        return Err(taken(holder.as_str()));
    }
    match user::insert(&mut tx, name, hash, PlatformRole::Admin).await {
        Err(error) if error.is_duplicate() => return Ok(false),
        other => other.map_err(failed)?,
    }
    let object = format!("user/{name}");
    let event = AuditEvent {
        actor: "dinp-uic create-admin",
        address: "",
        action: "user.create",
        object: &object,
        detail: "admin",
    };
    audit::write(&mut tx, &event).await.map_err(failed)?;
    tx.commit().await.map_err(|error| failed(StoreError::doing("commit a change")(error)))?;
    Ok(true)
}
