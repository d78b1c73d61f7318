//! Credentials that daemons show to each other: the secret on their machine, its hash in MySQL.

use super::error::SetupError;
use super::files::{service_credential, write_credential};
use super::mysql::connect;
use super::step::{State, Step, Task};
use dinp_common::auth::{Credential, CredentialKind, Role};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::net::IpAddr;

/// A daemon's own credential: the secret on this machine, its hash in MySQL.
pub struct Service {
    /// Where MySQL is.
    pub address: IpAddr,
    /// Credential on this machine.
    pub id: String,
    /// Name of the service.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl Step for Service {
    fn name(&self) -> String {
        format!("credential {}", self.id)
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let Some(credential) = service_credential(&self.id, &self.name)? else { return Ok(State::due("new")) };
            let known = service_row(&mut connect(self.address).await?, &self.name).await?;
            let wanted = (self.role.as_str().to_owned(), credential.secret_hash().to_vec());
            Ok(if known == Some(wanted) { State::Ok } else { State::due("its hash in MySQL") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let credential = match service_credential(&self.id, &self.name)? {
                Some(credential) => credential,
                None => Credential::generate(CredentialKind::Service, self.name.as_str()),
            };
            put_service(&mut connect(self.address).await?, &credential, self.role).await?;
            write_credential(&self.id, &credential.to_string())
        })
    }
}

async fn service_row(conn: &mut Conn, name: &str) -> Result<Option<(String, Vec<u8>)>, SetupError> {
    conn.exec_first("SELECT role, secret_hash FROM service_credential WHERE name = ?", (name,))
        .await
        .map_err(SetupError::query("read a service credential"))
}

/// Makes a service credential known, or renews it. A name keeps its role.
pub async fn put_service(conn: &mut Conn, credential: &Credential, role: Role) -> Result<(), SetupError> {
    if let Some((other, _)) = service_row(conn, &credential.name).await?
        && other != role.as_str()
    {
        let sentence = format!("the name {} belongs to a service with role {other}: choose another", credential.name);
        return Err(SetupError::Refused(sentence));
    }
    conn.exec_drop(
        "INSERT INTO service_credential (name, role, secret_hash) VALUES (?, ?, ?) \
         ON DUPLICATE KEY UPDATE secret_hash = VALUES(secret_hash)",
        (&credential.name, role.as_str(), &credential.secret_hash()[..]),
    )
    .await
    .map_err(SetupError::query("write a service credential"))
}
