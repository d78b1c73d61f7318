//! Who calls: credentials as bearer texts, and their verification.
//!
//! A credential is `node:<name>:<64 hex>`, `service:<name>:<64 hex>` or `session:<id>:<64 hex>`. Only
//! the SHA-256 of its secret is stored.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::{HeaderMap, header};
use mysql_async::prelude::Queryable;
use rand::TryRngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::credentials::Secret;
use crate::error::ErrorChain;
use crate::problem::Problem;

/// SHA-256 of a secret's hex text.
pub type SecretHash = [u8; 32];

/// Who made a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A compute node's agent.
    Node(String),
    /// A daemon.
    Service {
        /// Its name.
        name: String,
        /// What it may do.
        role: Role,
    },
    /// A person's session or token.
    Session(String),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Service { name, role } => write!(f, "service {name} ({role})"),
            Self::Session(id) => write!(f, "session {id}"),
        }
    }
}

/// What a daemon may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the daemons'")]
pub enum Role {
    Server,
    Dash,
    Builder,
    Router,
    Hm,
    Uic,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Server,
        Self::Dash,
        Self::Builder,
        Self::Router,
        Self::Hm,
        Self::Uic,
    ];

    /// The role as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Dash => "dash",
            Self::Builder => "builder",
            Self::Router => "router",
            Self::Hm => "hm",
            Self::Uic => "uic",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = MalformedCredential;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(MalformedCredential("unknown role"))
    }
}

/// Whose credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Principal")]
pub enum CredentialKind {
    Node,
    Service,
    Session,
}

impl CredentialKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Session => "session",
        }
    }
}

/// A bearer credential. `to_string` is its full text, secret included; `Debug` hides the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Whose.
    pub kind: CredentialKind,
    /// Name of the node or service, id of the session.
    pub name: String,
    /// 64 hexadecimal digits.
    pub secret: Secret,
}

/// A text that is no credential; says why without repeating it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed credential: {0}")]
pub struct MalformedCredential(&'static str);

impl Credential {
    /// A new credential with a random secret of 256 bits.
    pub fn generate(kind: CredentialKind, name: impl Into<String>) -> Self {
        let mut bytes = [0_u8; 32];
        rand::rngs::OsRng
            .try_fill_bytes(&mut bytes)
            .expect("the kernel's random source works");
        Self {
            kind,
            name: name.into(),
            secret: Secret::new(hex(&bytes)),
        }
    }

    /// Reads the credential that systemd handed over as `id`.
    pub fn read(id: &str) -> Result<Self, crate::credentials::CredentialError> {
        let text = crate::credentials::read_credential(id)?;
        text.expose().parse().map_err(|error: MalformedCredential| {
            crate::credentials::CredentialError::Malformed {
                id: id.to_owned(),
                problem: error.0.to_owned(),
            }
        })
    }

    /// What is stored of the secret.
    pub fn secret_hash(&self) -> SecretHash {
        secret_hash(self.secret.expose())
    }
}

/// SHA-256 of a secret text.
pub fn secret_hash(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Compares two hashes in constant time.
pub fn hash_matches(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.kind.as_str(),
            self.name,
            self.secret.expose()
        )
    }
}

impl FromStr for Credential {
    type Err = MalformedCredential;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let (Some(kind), Some(name), Some(secret)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(MalformedCredential("expected <kind>:<name>:<secret>"));
        };
        let kind = match kind {
            "node" => CredentialKind::Node,
            "service" => CredentialKind::Service,
            "session" => CredentialKind::Session,
            _ => {
                return Err(MalformedCredential(
                    "the kind is not node, service or session",
                ));
            }
        };
        let name_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(name_ok) {
            return Err(MalformedCredential("the name is not a plain name"));
        }
        if secret.len() != 64
            || !secret
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(MalformedCredential(
                "the secret is not 64 lower-case hexadecimal digits",
            ));
        }
        Ok(Self {
            kind,
            name: name.to_owned(),
            secret: Secret::new(secret),
        })
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}

/// The credential of a request's `Authorization: Bearer ...`; otherwise a 401.
pub fn bearer(headers: &HeaderMap) -> Result<Credential, Problem> {
    let value = headers
        .get(header::AUTHORIZATION)
        .ok_or_else(|| Problem::unauthorized("a bearer credential is needed"))?;
    let text = value.to_str().ok().and_then(|text| {
        let (scheme, rest) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    });
    let text = text.ok_or_else(|| {
        Problem::unauthorized("the Authorization header is not a bearer credential")
    })?;
    text.parse()
        .map_err(|error: MalformedCredential| Problem::unauthorized(error.to_string()))
}

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
        Self::Service {
            name: identity.name,
            role: identity.role,
        }
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
        F: Fn(String) -> BoxFuture<'static, Result<Option<Row>, LookupError>>
            + Send
            + Sync
            + 'static,
    {
        Self {
            lookup: Arc::new(lookup),
            cache: Arc::default(),
        }
    }

    /// The daemon that sent these headers; 401 if it is none, 503 if that cannot be told.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<ServiceIdentity, Problem> {
        self.verify_credential(&bearer(headers)?).await
    }

    /// As [`verify`](Self::verify), for a credential already taken from the headers.
    pub async fn verify_credential(
        &self,
        credential: &Credential,
    ) -> Result<ServiceIdentity, Problem> {
        if credential.kind != CredentialKind::Service {
            return Err(Problem::unauthorized("a service credential is needed"));
        }
        let hash = credential.secret_hash();
        let name = &credential.name;
        let identity = |row: Row| ServiceIdentity {
            name: name.clone(),
            role: row.0,
        };

        // A cached row with another hash proves nothing: the secret may have been renewed.
        let cached = self
            .cached(name)
            .filter(|cached| hash_matches(&cached.row.1, &hash));
        if let Some(cached) = cached
            && Instant::now() < cached.valid_until
        {
            return Ok(identity(cached.row));
        }
        let limit = if cached.is_some() {
            LOOKUP_WITH_STALE
        } else {
            LOOKUP
        };
        let answer = match tokio::time::timeout(limit, (self.lookup)(name.clone())).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(LookupError::from(elapsed)),
        };
        match (answer, cached) {
            (Ok(Some(row)), _) => {
                self.remember(name, row, FRESH);
                if hash_matches(&row.1, &hash) {
                    Ok(identity(row))
                } else {
                    Err(wrong_secret(name))
                }
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
    pub async fn require(
        &self,
        headers: &HeaderMap,
        roles: &[Role],
    ) -> Result<ServiceIdentity, Problem> {
        let identity = self.verify(headers).await?;
        if roles.contains(&identity.role) {
            return Ok(identity);
        }
        let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let detail = format!(
            "service {} has role {}, this needs {}",
            identity.name,
            identity.role,
            needed.join(" or ")
        );
        Err(Problem::forbidden(detail).with("needs", needed))
    }

    fn cached(&self, name: &str) -> Option<Cached> {
        self.cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .copied()
    }

    fn remember(&self, name: &str, row: Row, period: Duration) {
        let cached = Cached {
            row,
            valid_until: Instant::now() + period,
        };
        self.cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), cached);
    }

    fn forget(&self, name: &str) {
        self.cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }
}

fn wrong_secret(name: &str) -> Problem {
    tracing::warn!(service = %name, "service credential refused");
    Problem::unauthorized("the credential is not valid")
}

async fn select(pool: &mysql_async::Pool, name: &str) -> Result<Option<Row>, LookupError> {
    let mut conn = pool.get_conn().await?;
    let row: Option<(String, Vec<u8>)> = conn
        .exec_first(
            "SELECT role, secret_hash FROM service_credential WHERE name = ?",
            (name,),
        )
        .await?;
    let Some((role, hash)) = row else {
        return Ok(None);
    };
    let hash = SecretHash::try_from(hash)
        .map_err(|_| LookupError::from("stored secret hash is not 32 bytes"))?;
    Ok(Some((role.parse::<Role>()?, hash)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn headers(credential: &Credential) -> HeaderMap {
        let value = format!("Bearer {credential}").parse().unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[test]
    fn text_and_back() {
        let credential = Credential::generate(CredentialKind::Node, "node-1.example");
        let text = credential.to_string();
        assert!(text.starts_with("node:node-1.example:"));
        assert_eq!(text.parse::<Credential>().unwrap(), credential);
        assert!(!format!("{credential:?}").contains(credential.secret.expose()));
        assert!(hash_matches(
            &credential.secret_hash(),
            &secret_hash(credential.secret.expose())
        ));
    }

    #[test]
    fn malformed_texts() {
        let secret = "a".repeat(64);
        for text in [
            String::new(),
            "node:a".into(),
            format!("root:a:{secret}"),
            format!("node::{secret}"),
            format!("node:a/b:{secret}"),
            format!("node:a:{}", &secret[1..]),
            format!("node:a:{}", "A".repeat(64)),
            format!("node:a:{secret}:"),
        ] {
            assert!(text.parse::<Credential>().is_err(), "{text}");
        }
    }

    #[test]
    fn bearer_needs_the_scheme() {
        let credential = Credential::generate(CredentialKind::Session, "x1");
        assert_eq!(bearer(&headers(&credential)).unwrap(), credential);
        let basic = HeaderMap::from_iter([(header::AUTHORIZATION, "Basic abc".parse().unwrap())]);
        assert_eq!(bearer(&basic).unwrap_err().status, 401);
        assert_eq!(bearer(&HeaderMap::new()).unwrap_err().status, 401);
    }

    #[tokio::test]
    async fn roles_are_required() {
        let dash = Credential::generate(CredentialKind::Service, "dash");
        let auth = ServiceAuth::for_tests([(dash.clone(), Role::Dash)]);
        assert_eq!(
            auth.require(&headers(&dash), &[Role::Dash, Role::Hm])
                .await
                .unwrap()
                .role,
            Role::Dash
        );
        let refused = auth
            .require(&headers(&dash), &[Role::Router])
            .await
            .unwrap_err();
        assert_eq!(
            (refused.status, refused.detail.as_str()),
            (403, "service dash has role dash, this needs router")
        );
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

        assert_eq!(
            auth.verify(&headers(&router)).await.unwrap_err().status,
            503
        );
        mode.store(0, Ordering::SeqCst);
        assert!(auth.verify(&headers(&router)).await.is_ok());
        mode.store(1, Ordering::SeqCst);
        expire();
        assert!(
            auth.verify(&headers(&router)).await.is_ok(),
            "stale entry while the database is away"
        );
        mode.store(2, Ordering::SeqCst);
        expire();
        assert_eq!(
            auth.verify(&headers(&router)).await.unwrap_err().status,
            401
        );
        assert!(auth.cached("router").is_none());
    }
}
