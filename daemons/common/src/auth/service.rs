//! Verifying the daemons' credentials against MySQL.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::HeaderMap;
use tokio::sync::Semaphore;

use super::{Credential, CredentialKind, Principal, Role, SecretHash, bearer, hash_matches};
use crate::error::ErrorChain;
use crate::problem::Problem;
use crate::store::service;

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
/// How long an answer is believed that fits no caller: its secret may have been renewed, or the name be new.
const DOUBT: Duration = Duration::from_secs(2);
/// How long the database may take, where an older row can answer instead.
const LOOKUP_WITH_STALE: Duration = Duration::from_millis(500);
/// How long the database may take otherwise.
const LOOKUP: Duration = Duration::from_secs(3);
/// Strangers that are looked up at the same time: they must not use up the database for those who are known.
const STRANGERS: usize = 2;
/// Most names that are remembered.
const NAMES_MOST: usize = 4096;

/// Why nobody knows what the database says of a name.
#[derive(Debug, thiserror::Error)]
enum NotAsked {
    #[error("the database cannot be reached")]
    NoAnswer,
    #[error("too many are before it whom nobody knows")]
    NoTurn,
}

/// What the database has said of a name.
#[derive(Clone, Copy)]
struct Cached {
    /// `None`: there is no such service.
    row: Option<Row>,
    asked: Instant,
    valid_until: Instant,
}

/// Verifies service credentials against MySQL; what it has seen once it still accepts while the
/// database is away.
#[derive(Clone)]
pub struct ServiceAuth {
    lookup: Arc<Lookup>,
    cache: Arc<Mutex<HashMap<String, Cached>>>,
    strangers: Arc<Semaphore>,
    /// Whether the database could be asked last time.
    answered: Arc<AtomicBool>,
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
        Self {
            lookup: Arc::new(lookup),
            cache: Arc::default(),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            answered: Arc::new(AtomicBool::new(true)),
        }
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
        let fitting = |row: &Row| hash_matches(&row.1, &hash);
        let cached = self.cached(name);
        let now = Instant::now();
        let answer = match cached.and_then(|cached| cached.row).filter(fitting) {
            Some(row) if cached.is_some_and(|cached| now < cached.valid_until) => Ok(Some(row)),
            Some(row) => Ok(self.as_it_is_now(name, row).await),
            None if cached.is_some_and(|cached| now < cached.asked + DOUBT) => Ok(None),
            None => self.of_stranger(name).await,
        };
        match answer {
            Ok(Some(row)) if fitting(&row) => Ok(ServiceIdentity { name: name.clone(), role: row.0 }),
            Ok(_) => Err(wrong_secret(name)),
            Err(why) => {
                Err(Problem::unavailable("auth-unavailable", format!("the credential cannot be verified now: {why}")))
            }
        }
    }

    /// The row of a known daemon as it is now; as it was where the database cannot be asked.
    async fn as_it_is_now(&self, name: &str, known: Row) -> Option<Row> {
        let answer = self.ask(name, LOOKUP_WITH_STALE).await;
        answer.unwrap_or_else(|_| {
            self.believe_on(name);
            Some(known)
        })
    }

    /// The row of who is not known, or not by this secret.
    async fn of_stranger(&self, name: &str) -> Result<Option<Row>, NotAsked> {
        // Closed never: the semaphore lives as long as this.
        let Ok(_turn) = tokio::time::timeout(LOOKUP, self.strangers.acquire()).await else {
            return Err(NotAsked::NoTurn);
        };
        self.ask(name, LOOKUP).await
    }

    async fn ask(&self, name: &str, limit: Duration) -> Result<Option<Row>, NotAsked> {
        let answer = match tokio::time::timeout(limit, (self.lookup)(name.to_owned())).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(LookupError::from(elapsed)),
        };
        match &answer {
            Ok(row) => self.remember(name, *row, FRESH),
            Err(error) if self.answered.load(Ordering::Relaxed) => {
                tracing::warn!(error = %ErrorChain(error.as_ref()), "service credentials cannot be asked for; those that are known hold");
            }
            Err(_) => {}
        }
        self.answered.store(answer.is_ok(), Ordering::Relaxed);
        answer.map_err(|_| NotAsked::NoAnswer)
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
        self.names().get(name).copied()
    }

    fn remember(&self, name: &str, row: Option<Row>, period: Duration) {
        let asked = Instant::now();
        let mut names = self.names();
        if names.len() >= NAMES_MOST {
            // Only strangers can be so many.
            names.retain(|_, cached| cached.row.is_some());
        }
        names.insert(name.to_owned(), Cached { row, asked, valid_until: asked + period });
    }

    /// The database could not be asked again: what it said last is believed on, and is no fresher for that.
    fn believe_on(&self, name: &str) {
        if let Some(cached) = self.names().get_mut(name) {
            cached.valid_until = Instant::now() + HOLD_OFF;
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wrong_secret(name: &str) -> Problem {
    tracing::warn!(service = %name, "service credential refused");
    Problem::unauthorized("the credential is not valid")
}

async fn select(pool: &mysql_async::Pool, name: &str) -> Result<Option<Row>, LookupError> {
    let mut conn = pool.get_conn().await?;
    let row = service::find(&mut conn, name).await?;
    Ok(row.map(|row| (row.role, row.secret_hash)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

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
        let expire = || auth.remember("router", Some(row), Duration::ZERO);

        assert_eq!(auth.verify(&headers(&router)).await.unwrap_err().status, 503);
        mode.store(0, Ordering::SeqCst);
        assert!(auth.verify(&headers(&router)).await.is_ok());
        mode.store(1, Ordering::SeqCst);
        expire();
        assert!(auth.verify(&headers(&router)).await.is_ok(), "stale entry while the database is away");
        mode.store(2, Ordering::SeqCst);
        expire();
        assert_eq!(auth.verify(&headers(&router)).await.unwrap_err().status, 401);
        assert!(auth.cached("router").is_some_and(|cached| cached.row.is_none()));
    }

    #[tokio::test]
    async fn while_the_database_is_away_no_secret_is_called_wrong_that_it_was_not_asked_about() {
        let (old, renewed) =
            (Credential::generate(CredentialKind::Service, "hm"), Credential::generate(CredentialKind::Service, "hm"));
        let auth = ServiceAuth::with_lookup(|_| Box::pin(async { Err("connection refused".into()) }));
        let long_ago = Instant::now() - FRESH;
        let row = Some((Role::Hm, old.secret_hash()));
        auth.names().insert("hm".into(), Cached { row, asked: long_ago, valid_until: long_ago });
        assert!(auth.verify_credential(&old).await.is_ok(), "the one that is known holds");
        let refused = auth.verify_credential(&renewed).await.unwrap_err();
        assert_eq!((refused.status, refused.kind.as_str()), (503, "auth-unavailable"));
        assert!(refused.detail.ends_with("the database cannot be reached"), "{}", refused.detail);
    }

    #[tokio::test]
    async fn who_gets_no_turn_is_told_so_and_not_that_the_database_is_away() {
        let auth = ServiceAuth::for_tests([]);
        let _turns = auth.strangers.acquire_many(STRANGERS as u32).await.unwrap();
        let stranger = Credential::generate(CredentialKind::Service, "x");
        let refused = auth.verify_credential(&stranger).await.unwrap_err();
        assert_eq!(refused.status, 503);
        assert!(refused.detail.ends_with("too many are before it whom nobody knows"), "{}", refused.detail);
    }

    #[tokio::test]
    async fn names_that_nobody_has_cost_the_database_one_question_and_never_more_than_two_at_a_time() {
        let (now, most, asked) =
            (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let counters = (now.clone(), most.clone(), asked.clone());
        let auth = ServiceAuth::with_lookup(move |_| {
            let (now, most, asked) = counters.clone();
            Box::pin(async move {
                asked.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(None)
            })
        });
        let strangers: Vec<_> =
            (0..50).map(|number| Credential::generate(CredentialKind::Service, format!("x{number}"))).collect();
        for _ in 0..3 {
            let answers = strangers.iter().map(|stranger| auth.verify_credential(stranger));
            for answer in futures_util::future::join_all(answers).await {
                assert_eq!(answer.unwrap_err().status, 401);
            }
        }
        assert_eq!((asked.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (50, 2));
    }

    #[tokio::test]
    async fn strangers_without_end_are_not_remembered_without_end() {
        let auth = ServiceAuth::for_tests([]);
        let row = (Role::Dash, SecretHash::default());
        auth.remember("dash", Some(row), FRESH);
        for number in 0..3 * NAMES_MOST {
            auth.remember(&format!("x{number}"), None, FRESH);
        }
        assert!(auth.names().len() <= NAMES_MOST);
        assert!(auth.cached("dash").is_some());
    }
}
