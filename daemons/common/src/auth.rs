//! Who calls: credentials as bearer texts, and their verification.
//!
//! A credential is `node:<name>:<64 hex>`, `service:<name>:<64 hex>` or `session:<id>:<64 hex>`. Only
//! the SHA-256 of its secret is stored.

mod service;

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, header};
use rand::TryRngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::credentials::Secret;
use crate::problem::Problem;

pub use service::{ServiceAuth, ServiceIdentity};

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
    pub const ALL: [Self; 6] = [Self::Server, Self::Dash, Self::Builder, Self::Router, Self::Hm, Self::Uic];

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
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(MalformedCredential("unknown role"))
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
        rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the kernel's random source works");
        Self { kind, name: name.into(), secret: Secret::new(hex(&bytes)) }
    }

    /// Reads the credential that systemd handed over as `id`.
    pub fn read(id: &str) -> Result<Self, crate::credentials::CredentialError> {
        let text = crate::credentials::read_credential(id)?;
        text.expose().parse().map_err(|error: MalformedCredential| crate::credentials::CredentialError::Malformed {
            id: id.to_owned(),
            problem: error.0.to_owned(),
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
        write!(f, "{}:{}:{}", self.kind.as_str(), self.name, self.secret.expose())
    }
}

impl FromStr for Credential {
    type Err = MalformedCredential;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let (Some(kind), Some(name), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MalformedCredential("expected <kind>:<name>:<secret>"));
        };
        let kind = match kind {
            "node" => CredentialKind::Node,
            "service" => CredentialKind::Service,
            "session" => CredentialKind::Session,
            _ => {
                return Err(MalformedCredential("the kind is not node, service or session"));
            }
        };
        let name_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(name_ok) {
            return Err(MalformedCredential("the name is not a plain name"));
        }
        if secret.len() != 64 || !secret.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(MalformedCredential("the secret is not 64 lower-case hexadecimal digits"));
        }
        Ok(Self { kind, name: name.to_owned(), secret: Secret::new(secret) })
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// The 32 bytes that 64 hexadecimal digits say.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// The credential of a request's `Authorization: Bearer ...`; otherwise a 401.
pub fn bearer(headers: &HeaderMap) -> Result<Credential, Problem> {
    let value =
        headers.get(header::AUTHORIZATION).ok_or_else(|| Problem::unauthorized("a bearer credential is needed"))?;
    let text = value.to_str().ok().and_then(|text| {
        let (scheme, rest) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    });
    let text = text.ok_or_else(|| Problem::unauthorized("the Authorization header is not a bearer credential"))?;
    text.parse().map_err(|error: MalformedCredential| Problem::unauthorized(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn headers(credential: &Credential) -> HeaderMap {
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
        assert!(hash_matches(&credential.secret_hash(), &secret_hash(credential.secret.expose())));
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
}
