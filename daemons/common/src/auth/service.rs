//! Verifying the daemons' credentials against MySQL.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::HeaderMap;
use mysql_async::prelude::Queryable;

use super::{Credential, CredentialKind, Principal, Role, SecretHash, bearer, hash_matches};
use crate::error::ErrorChain;
use crate::problem::Problem;

/// A verified daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceIdentity {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl From<ServiceIdentity> for Principal {
    fn from(identity: ServiceIdentity) -> Self {
        Self::Service { name: identity.name, role: identity.role }
    }
}

type Row = (Role, SecretHash);
type LookupError = Box<dyn std::error::Error + Send + Sync>;
type Lookup = dyn Fn(String) -> BoxFuture<'static, Result<Option<Row>, LookupError>> + Send + Sync;

/// How long a row is believed without asking again.
const FRESH: Duration = Duration::from_secs(60);
/// How long a row is believed after the database could not be asked.
const HOLD_OFF: Duration = Duration::from_secs(5);
/// How long the database may take, where an older row can answer instead.
const LOOKUP_WITH_STALE: Duration = Duration::from_millis(500);
/// How long the database may take otherwise.
const LOOKUP: Duration = Duration::from_secs(3);

#[derive(Clone, Copy)]
struct Cached {
    row: Row,
    valid_until: Instant,
}

/// Verifies service credentials against MySQL; what it has seen once it still accepts while the
/// database is away.
#[derive(Clone)]
pub struct ServiceAuth {
    lookup: Arc<Lookup>,
    cache: Arc<Mutex<HashMap<String, Cached>>>,
}

impl fmt::Debug for ServiceAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceAuth")
    }
}

impl ServiceAuth {
    /// Verifies against the table `service_credential`.
    pub fn new(pool: mysql_async::Pool) -> Self {
        Self::with_lookup(move |name| {
            let pool = pool.clone();
            Box::pin(async move { select(&pool, &name).await })
        })
    }

    /// Knows exactly these credentials, for tests.
    pub fn for_tests(known: impl IntoIterator<Item = (Credential, Role)>) -> Self {
        let known: HashMap<String, Row> = known
            .into_iter()
            .map(|(credential, role)| (credential.name.clone(), (role, credential.secret_hash())))
            .collect();
        Self::with_lookup(move |name| {
            let row = known.get(&name).copied();
            Box::pin(async move { Ok(row) })
        })
    }

    fn with_lookup<F>(lookup: F) -> Self
    where
        F: Fn(String) -> BoxFuture<'static, Result<Option<Row>, LookupError>> + Send + Sync + 'static,
    {
        Self { lookup: Arc::new(lookup), cache: Arc::default() }
    }

    /// The daemon that sent these headers; 401 if it is none, 503 if that cannot be told.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<ServiceIdentity, Problem> {
        self.verify_credential(&bearer(headers)?).await
    }

    /// As [`verify`](Self::verify), for a credential already taken from the headers.
    pub async fn verify_credential(&self, credential: &Credential) -> Result<ServiceIdentity, Problem> {
        if credential.kind != CredentialKind::Service {
            return Err(Problem::unauthorized("a service credential is needed"));
        }
        let hash = credential.secret_hash();
        let name = &credential.name;
        let identity = |row: Row| ServiceIdentity { name: name.clone(), role: row.0 };

        // A cached row with another hash proves nothing: the secret may have been renewed.
        let cached = self.cached(name).filter(|cached| hash_matches(&cached.row.1, &hash));
        if let Some(cached) = cached
            && Instant::now() < cached.valid_until
        {
            return Ok(identity(cached.row));
        }
        let limit = if cached.is_some() { LOOKUP_WITH_STALE } else { LOOKUP };
        let answer = match tokio::time::timeout(limit, (self.lookup)(name.clone())).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(LookupError::from(elapsed)),
        };
        match (answer, cached) {
            (Ok(Some(row)), _) => {
                self.remember(name, row, FRESH);
                if hash_matches(&row.1, &hash) { Ok(identity(row)) } else { Err(wrong_secret(name)) }
            }
            (Ok(None), _) => {
                self.forget(name);
                Err(wrong_secret(name))
            }
            (Err(error), Some(cached)) => {
                tracing::warn!(service = %name, error = %ErrorChain(error.as_ref()), "service credential accepted from memory, database cannot be asked");
                self.remember(name, cached.row, HOLD_OFF);
                Ok(identity(cached.row))
            }
            (Err(error), None) => {
                tracing::warn!(service = %name, error = %ErrorChain(error.as_ref()), "service credential cannot be verified");
                Err(Problem::unavailable(
                    "auth-unavailable",
                    "the credential cannot be verified now: the database cannot be reached",
                ))
            }
        }
    }

    /// As [`verify`](Self::verify), and 403 unless the daemon has one of `roles`.
    pub async fn require(&self, headers: &HeaderMap, roles: &[Role]) -> Result<ServiceIdentity, Problem> {
        let identity = self.verify(headers).await?;
        if roles.contains(&identity.role) {
            return Ok(identity);
        }
        let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let detail =
            format!("service {} has role {}, this needs {}", identity.name, identity.role, needed.join(" or "));
        Err(Problem::forbidden(detail).with("needs", needed))
    }

    fn cached(&self, name: &str) -> Option<Cached> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn remember(&self, name: &str, row: Row, period: Duration) {
        let cached = Cached { row, valid_until: Instant::now() + period };
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), cached);
    }

    fn forget(&self, name: &str) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

fn wrong_secret(name: &str) -> Problem {
    tracing::warn!(service = %name, "service credential refused");
    Problem::unauthorized("the credential is not valid")
}

async fn select(pool: &mysql_async::Pool, name: &str) -> Result<Option<Row>, LookupError> {
    let mut conn = pool.get_conn().await?;
    let row: Option<(String, Vec<u8>)> =
        conn.exec_first("SELECT role, secret_hash FROM service_credential WHERE name = ?", (name,)).await?;
    let Some((role, hash)) = row else {
        return Ok(None);
    };
    let hash = SecretHash::try_from(hash).map_err(|_| LookupError::from("stored secret hash is not 32 bytes"))?;
    Ok(Some((role.parse::<Role>()?, hash)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::tests::headers;
    use super::*;

    #[tokio::test]
    async fn roles_are_required() {
        let dash = Credential::generate(CredentialKind::Service, "dash");
        let auth = ServiceAuth::for_tests([(dash.clone(), Role::Dash)]);
        assert_eq!(auth.require(&headers(&dash), &[Role::Dash, Role::Hm]).await.unwrap().role, Role::Dash);
        let refused = auth.require(&headers(&dash), &[Role::Router]).await.unwrap_err();
        assert_eq!((refused.status, refused.detail.as_str()), (403, "service dash has role dash, this needs router"));
        let other = Credential::generate(CredentialKind::Service, "dash");
        assert_eq!(auth.verify(&headers(&other)).await.unwrap_err().status, 401);
        let node = Credential::generate(CredentialKind::Node, "dash");
        assert_eq!(auth.verify(&headers(&node)).await.unwrap_err().status, 401);
    }

    #[tokio::test]
    async fn database_outage() {
        // Answers: 0 row, 1 unreachable, 2 deleted.
        let mode = Arc::new(AtomicU32::new(1));
        let router = Credential::generate(CredentialKind::Service, "router");
        let row = (Role::Router, router.secret_hash());
        let auth = ServiceAuth::with_lookup({
            let mode = mode.clone();
            move |_| {
                let answer = match mode.load(Ordering::SeqCst) {
                    0 => Ok(Some(row)),
                    1 => Err("connection refused".into()),
                    _ => Ok(None),
                };
                Box::pin(async move { answer })
            }
        });
        let expire = || auth.remember("router", row, Duration::ZERO);

        assert_eq!(auth.verify(&headers(&router)).await.unwrap_err().status, 503);
        mode.store(0, Ordering::SeqCst);
        assert!(auth.verify(&headers(&router)).await.is_ok());
        mode.store(1, Ordering::SeqCst);
        expire();
        assert!(auth.verify(&headers(&router)).await.is_ok(), "stale entry while the database is away");
        mode.store(2, Ordering::SeqCst);
        expire();
        assert_eq!(auth.verify(&headers(&router)).await.unwrap_err().status, 401);
        assert!(auth.cached("router").is_none());
    }
}
