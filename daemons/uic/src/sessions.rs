//! Who is signed in: browsers by a cookie, clients by an access token.

use crate::Uic;
use dinp_common::auth::{Credential, CredentialKind, hash_matches, hex};
use dinp_common::problem::Problem;
use dinp_common::store::session::{self, NewSession, SessionKind, SessionRow};
use dinp_common::store::user::UserRow;
use dinp_common::web;
use http::HeaderMap;
use mysql_async::Conn;
use rand::TryRngCore;

/// Cookie of a browser that is signed in.
pub const COOKIE: &str = "dinp_uic";

/// A browser that is signed in.
pub struct Browser {
    /// What its cookie holds.
    pub credential: Credential,
    /// Its session.
    pub session: SessionRow,
}

impl Browser {
    /// What this browser's forms must carry.
    pub fn form_token(&self) -> String {
        web::form_token(self.credential.secret.expose())
    }
}

/// A credential for a new session.
fn new_credential() -> Credential {
    let mut bytes = [0_u8; 8];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the kernel's random source works");
    Credential::generate(CredentialKind::Session, hex(&bytes))
}

/// The session that a credential stands for, unless it has ended or its owner is suspended.
async fn find(conn: &mut Conn, credential: &Credential, kind: SessionKind) -> Result<Option<SessionRow>, Problem> {
    if credential.kind != CredentialKind::Session {
        return Ok(None);
    }
    let row = session::find(conn, &credential.name, kind).await?;
    Ok(row.filter(|row| hash_matches(&row.secret_hash, &credential.secret_hash()) && !row.user.suspended))
}

impl Uic {
    /// The browser that sent these headers, if it is signed in.
    pub(crate) async fn browser(&self, headers: &HeaderMap) -> Result<Option<Browser>, Problem> {
        let credential = self.cookies.get(headers, COOKIE).and_then(|text| text.parse::<Credential>().ok());
        let Some(credential) = credential else { return Ok(None) };
        let mut conn = self.conn().await?;
        let session = find(&mut conn, &credential, SessionKind::Browser).await?;
        Ok(session.map(|session| Browser { credential, session }))
    }

    /// The session of an access token, if it is good.
    pub(crate) async fn access(&self, token: &str) -> Result<Option<SessionRow>, Problem> {
        let Ok(credential) = token.parse::<Credential>() else { return Ok(None) };
        let mut conn = self.conn().await?;
        find(&mut conn, &credential, SessionKind::Access).await
    }

    /// Signs a browser in: always a new session, so that nobody can plant one beforehand. Returns what its cookie is to
    /// hold; nothing where the person was suspended, or got another password, after this one was compared.
    pub(crate) async fn begin_browser(&self, conn: &mut Conn, user: &UserRow) -> Result<Option<Credential>, Problem> {
        let credential = new_credential();
        let new = NewSession {
            id: &credential.name,
            secret_hash: &credential.secret_hash(),
            user_id: user.id,
            kind: SessionKind::Browser,
            client: "",
            parent: None,
            ttl_secs: self.config.session_secs,
        };
        let begun = session::insert_while(conn, new, &user.password_hash).await?;
        Ok(begun.then_some(credential))
    }

    /// Gives a client an access token that came from a browser's session; nothing where that has ended meanwhile.
    pub(crate) async fn begin_access(
        &self,
        conn: &mut Conn,
        browser: &SessionRow,
        client: &str,
        ttl_secs: u64,
    ) -> Result<Option<Credential>, Problem> {
        let credential = new_credential();
        let new = NewSession {
            id: &credential.name,
            secret_hash: &credential.secret_hash(),
            user_id: browser.user.id,
            kind: SessionKind::Access,
            client,
            parent: Some(&browser.id),
            ttl_secs,
        };
        let begun = session::insert_while(conn, new, &browser.user.password_hash).await?;
        Ok(begun.then_some(credential))
    }

    /// Ends the session of an access token. Signing out of the dashboard signs the browser out too; a command line's
    /// token stands for itself.
    pub(crate) async fn revoke(&self, token: &str) -> Result<Option<SessionRow>, Problem> {
        let Some(row) = self.access(token).await? else { return Ok(None) };
        let mut conn = self.conn().await?;
        if let (Some(parent), "dash") = (&row.parent, row.client.as_str()) {
            session::remove_with_client(&mut conn, parent, "dash").await?;
        }
        session::remove(&mut conn, &row.id).await?;
        Ok(Some(row))
    }

    /// Signs a browser out, and the dashboards that were signed in by it.
    pub(crate) async fn end_browser(&self, conn: &mut Conn, id: &str) -> Result<(), Problem> {
        Ok(session::remove_with_client(conn, id, "dash").await?)
    }
}
