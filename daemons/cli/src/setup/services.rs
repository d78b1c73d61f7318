//! Credentials that daemons show to each other: the secret on their machine, its hash in MySQL.

use super::error::SetupError;
use super::files::{service_credential, write_credential};
use super::mysql::connect;
use super::step::{State, Step, Task};
use dinp_common::auth::{Credential, CredentialKind, Role};
use dinp_common::store::service::{self, ServiceRow};
use mysql_async::Conn;
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
            let known = service::find(&mut connect(self.address).await?, &self.name).await?;
            let wanted = ServiceRow { role: self.role, secret_hash: credential.secret_hash() };
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

/// Makes a service credential known, or renews it. A name keeps its role.
pub async fn put_service(conn: &mut Conn, credential: &Credential, role: Role) -> Result<(), SetupError> {
    if let Some(ServiceRow { role: other, .. }) = service::find(conn, &credential.name).await?
        && other != role
    {
        let sentence = format!("the name {} belongs to a service with role {other}: choose another", credential.name);
        return Err(SetupError::Refused(sentence));
    }
    Ok(service::put(conn, &credential.name, role, &credential.secret_hash()).await?)
}
