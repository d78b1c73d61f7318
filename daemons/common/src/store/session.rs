//! Tables `session` and `auth_code`: who is signed in where. Written by uic alone; times are the database's.

use super::columns::{Columns, millis};
use super::user::UserRow;
use super::{BATCH, StoreError, drop_all};
use crate::api::UnixMillis;
use crate::auth::SecretHash;
use mysql_async::prelude::Queryable;
use mysql_async::{Row, params};

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// A browser at uic itself.
    Browser,
    /// A client with an access token.
    Access,
}

impl SessionKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Access => "access",
        }
    }
}

/// A session that has not ended, and whose it is.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Key.
    pub id: String,
    /// SHA-256 of the secret.
    pub secret_hash: Vec<u8>,
    /// Client that holds the token; empty for a browser.
    pub client: String,
    /// The browser session that it came from.
    pub parent: Option<String>,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// Whose it is.
    pub user: UserRow,
}

/// A session to write.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    /// Key.
    pub id: &'a str,
    /// SHA-256 of the secret.
    pub secret_hash: &'a SecretHash,
    /// Whose it is.
    pub user_id: u64,
    /// What for.
    pub kind: SessionKind,
    /// Client that holds the token; empty for a browser.
    pub client: &'a str,
    /// The browser session that it came from.
    pub parent: Option<&'a str>,
    /// How long it lasts.
    pub ttl_secs: u64,
}

/// Begins a session.
pub async fn insert<Q: Queryable>(conn: &mut Q, new: NewSession<'_>) -> Result<(), StoreError> {
    conn.exec_drop(
        "INSERT INTO session (id, secret_hash, user_id, kind, client, parent, expires_at) \
         VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(3) + INTERVAL ? SECOND)",
        (new.id, &new.secret_hash[..], new.user_id, new.kind.as_str(), new.client, new.parent, new.ttl_secs),
    )
    .await
    .map_err(StoreError::doing("write a session"))
}

/// Begins a session, unless the person's password has been changed, the person has been suspended or the session that
/// it came from has ended since they were read: a sign-on must not outlive what ends all sign-ons. False if so.
pub async fn insert_while<Q: Queryable>(
    conn: &mut Q,
    new: NewSession<'_>,
    password_hash: &str,
) -> Result<bool, StoreError> {
    let doing = StoreError::doing("write a session");
    let sql = "INSERT INTO session (id, secret_hash, user_id, kind, client, parent, expires_at) \
         SELECT :id, :secret_hash, u.id, :kind, :client, :parent, UTC_TIMESTAMP(3) + INTERVAL :ttl SECOND FROM user u \
         WHERE u.id = :user AND u.password_hash = :password AND u.suspended_at IS NULL \
         AND (:parent IS NULL OR EXISTS (SELECT 1 FROM session p WHERE p.id = :parent))";
    let values = params! {
        "id" => new.id, "secret_hash" => &new.secret_hash[..], "kind" => new.kind.as_str(), "client" => new.client,
        "parent" => new.parent, "ttl" => new.ttl_secs, "user" => new.user_id, "password" => password_hash,
    };
    conn.exec_drop(sql, values).await.map_err(&doing)?;
    let row: Option<Row> = conn.exec_first("SELECT id FROM session WHERE id = ?", (new.id,)).await.map_err(&doing)?;
    prune(conn, &new).await?;
    Ok(row.is_some())
}

/// Sessions of one person and kind at the same time; a further one ends the oldest.
pub const KEPT: u32 = 100;

async fn prune<Q: Queryable>(conn: &mut Q, new: &NewSession<'_>) -> Result<(), StoreError> {
    let doing = StoreError::doing("end old sessions");
    let surplus: Vec<String> = conn
        .exec(
            "SELECT id FROM session WHERE user_id = ? AND kind = ? ORDER BY id = ? DESC, created_at DESC LIMIT 1000 OFFSET ?",
            (new.user_id, new.kind.as_str(), new.id, KEPT),
        )
        .await
        .map_err(&doing)?;
    for id in surplus {
        conn.exec_drop("DELETE FROM session WHERE id = ?", (id,)).await.map_err(&doing)?;
    }
    Ok(())
}

/// A session of this kind that has not ended.
pub async fn find<Q: Queryable>(conn: &mut Q, id: &str, kind: SessionKind) -> Result<Option<SessionRow>, StoreError> {
    let sql = concat!(
        "SELECT s.id AS session_id, s.secret_hash, s.client, s.parent, ",
        millis!("s.expires_at"),
        " AS expires_millis, u.id, u.name, u.password_hash, u.role, u.suspended_at IS NOT NULL AS suspended \
         FROM session s JOIN user u ON u.id = s.user_id WHERE s.id = ? AND s.kind = ? AND s.expires_at > UTC_TIMESTAMP(3)"
    );
    let row: Option<Row> =
        conn.exec_first(sql, (id, kind.as_str())).await.map_err(StoreError::doing("read a session"))?;
    row.as_ref()
        .map(|row| {
            let columns = Columns::new(row, "session", "session_id");
            Ok(SessionRow {
                id: columns.get("session_id")?,
                secret_hash: columns.get("secret_hash")?,
                client: columns.get("client")?,
                parent: columns.get("parent")?,
                expires_at: columns.get("expires_millis")?,
                user: UserRow::read(row)?,
            })
        })
        .transpose()
}

/// Ends a session.
pub async fn remove<Q: Queryable>(conn: &mut Q, id: &str) -> Result<(), StoreError> {
    conn.exec_drop("DELETE FROM session WHERE id = ?", (id,)).await.map_err(StoreError::doing("end a session"))
}

/// Ends a browser's session and all sessions of one client that came from it.
pub async fn remove_with_client<Q: Queryable>(conn: &mut Q, id: &str, client: &str) -> Result<(), StoreError> {
    conn.exec_drop("DELETE FROM session WHERE id = ? OR (parent = ? AND client = ?)", (id, id, client))
        .await
        .map_err(StoreError::doing("end sessions"))
}

/// Ends all sessions of a person but one.
pub async fn remove_of_user<Q: Queryable>(conn: &mut Q, user_id: u64, but: &str) -> Result<(), StoreError> {
    conn.exec_drop("DELETE FROM session WHERE user_id = ? AND id <> ?", (user_id, but))
        .await
        .map_err(StoreError::doing("end a user's sessions"))
}

/// Removes what has ended by itself; returns how many rows went.
pub async fn remove_expired(conn: &mut mysql_async::Conn) -> Result<u64, StoreError> {
    let mut removed = 0;
    for table in ["session", "auth_code"] {
        let sql = format!("DELETE FROM {table} WHERE expires_at < UTC_TIMESTAMP(3) LIMIT {BATCH}");
        removed += drop_all(conn, "remove ended sessions", &sql, ()).await?;
    }
    Ok(removed)
}

/// An authorization code to write, or one that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthCode {
    /// The browser session that it stands for.
    pub session_id: String,
    /// Client that it is for.
    pub client: String,
    /// Where it was sent.
    pub redirect_uri: String,
    /// Challenge that the client's verifier must meet.
    pub challenge: String,
}

/// Codes of one browser session that wait to be exchanged; a further one takes the oldest's place.
pub const KEPT_CODES: u32 = 20;

/// Writes an authorization code.
pub async fn insert_code<Q: Queryable>(
    conn: &mut Q,
    code_hash: &SecretHash,
    code: &AuthCode,
    ttl_secs: u64,
) -> Result<(), StoreError> {
    conn.exec_drop(
        "INSERT INTO auth_code (code_hash, session_id, client, redirect_uri, challenge, expires_at) \
         VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(3) + INTERVAL ? SECOND)",
        (&code_hash[..], &code.session_id, &code.client, &code.redirect_uri, &code.challenge, ttl_secs),
    )
    .await
    .map_err(StoreError::doing("write an authorization code"))?;
    let doing = StoreError::doing("drop old authorization codes");
    let surplus: Vec<Vec<u8>> = conn
        .exec(
            "SELECT code_hash FROM auth_code WHERE session_id = ? \
             ORDER BY code_hash = ? DESC, expires_at DESC LIMIT 1000 OFFSET ?",
            (&code.session_id, &code_hash[..], KEPT_CODES),
        )
        .await
        .map_err(&doing)?;
    for hash in surplus {
        conn.exec_drop("DELETE FROM auth_code WHERE code_hash = ?", (hash,)).await.map_err(&doing)?;
    }
    Ok(())
}

/// Takes an authorization code: of two who try, one gets it.
pub async fn take_code(conn: &mut mysql_async::Conn, code_hash: &SecretHash) -> Result<Option<AuthCode>, StoreError> {
    let doing = StoreError::doing("take an authorization code");
    let row: Option<Row> = conn
        .exec_first(
            "SELECT session_id, client, redirect_uri, challenge FROM auth_code \
             WHERE code_hash = ? AND expires_at > UTC_TIMESTAMP(3)",
            (&code_hash[..],),
        )
        .await
        .map_err(&doing)?;
    let Some(row) = row else { return Ok(None) };
    conn.exec_drop("DELETE FROM auth_code WHERE code_hash = ?", (&code_hash[..],)).await.map_err(&doing)?;
    if conn.affected_rows() == 0 {
        return Ok(None);
    }
    let columns = Columns::new(&row, "auth_code", "session_id");
    Ok(Some(AuthCode {
        session_id: columns.get("session_id")?,
        client: columns.get("client")?,
        redirect_uri: columns.get("redirect_uri")?,
        challenge: columns.get("challenge")?,
    }))
}
