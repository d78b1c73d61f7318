//! Steps that are about files: programs that must be there, configuration, credentials.

use super::error::SetupError;
use super::step::{State, Step, Task};
use super::system::{self, Access};
use dinp_common::auth::{self, Credential, CredentialKind};
use dinp_common::credentials::{Secret, read_secret_file};
use rand::TryRngCore;
use std::path::{Path, PathBuf};

/// Where credentials are kept.
pub const CREDENTIALS: &str = "/etc/dinp/credentials";

/// The first lines of a drop-in.
pub const HEAD: &str = "\
# Written by `dinp setup`, and written again when it runs again: put your own settings into another file of this
# directory, with a name that comes later.
";

/// File of a credential.
pub fn credential_path(id: &str) -> PathBuf {
    Path::new(CREDENTIALS).join(id)
}

/// A credential on this machine; `None` if there is none.
pub fn credential(id: &str) -> Result<Option<Secret>, SetupError> {
    match read_secret_file(&credential_path(id)) {
        Ok(secret) => Ok(Some(secret)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A credential that an earlier step has made.
pub fn needed_credential(id: &str) -> Result<Secret, SetupError> {
    Ok(read_secret_file(&credential_path(id))?)
}

/// Writes a credential.
pub fn write_credential(id: &str, text: &str) -> Result<(), SetupError> {
    system::write(&credential_path(id), &format!("{text}\n"), Access::SECRET)
}

/// 256 random bits in hexadecimal.
pub fn random_hex(bytes: usize) -> String {
    let mut random = vec![0_u8; bytes];
    rand::rngs::OsRng.try_fill_bytes(&mut random).expect("the kernel's random source works");
    auth::hex(&random)
}

/// What something is called, the programs that it may be, the package that brings it.
pub type Program = (&'static str, &'static [&'static str], &'static str);

/// Programs of other packages, of which one per entry must be there.
pub struct Programs {
    /// All of them.
    pub wanted: Vec<Program>,
}

impl Step for Programs {
    fn name(&self) -> String {
        "programs".into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let missing = |entry: &&Program| entry.1.iter().all(|name| system::find_program(name).is_none());
            let missing: Vec<_> = self.wanted.iter().filter(missing).collect();
            if missing.is_empty() {
                return Ok(State::Ok);
            }
            let what: Vec<&str> = missing.iter().map(|entry| entry.0).collect();
            let mut packages: Vec<&str> = missing.iter().map(|entry| entry.2).collect();
            packages.dedup();
            let sentence = format!("{} not installed: apt-get install {}", what.join(", ") + " is", packages.join(" "));
            Err(SetupError::Refused(sentence))
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A file with this content.
pub struct File {
    path: PathBuf,
    content: String,
    access: Access,
}

impl File {
    /// The step as it stands in a list.
    pub fn step(path: impl Into<PathBuf>, content: impl Into<String>, access: Access) -> Box<dyn Step> {
        Box::new(Self { path: path.into(), content: content.into(), access })
    }
}

impl Step for File {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            match system::read(&self.path)? {
                None => Ok(State::due("new file")),
                Some(old) if old != self.content => Ok(State::due("new content")),
                Some(_) if !self.access.holds(&self.path)? => Ok(State::due("owner or permissions")),
                Some(_) => Ok(State::Ok),
            }
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { system::write(&self.path, &self.content, self.access) })
    }
}

/// What a credential is.
pub enum Kind {
    /// A random password.
    Password,
    /// A random password behind an account's name: `name:password`.
    Account(&'static str),
    /// This text.
    Given(Secret),
}

/// A credential: kept if it is there, made otherwise.
pub struct CredentialFile {
    id: String,
    kind: Kind,
}

impl CredentialFile {
    /// The step as it stands in a list.
    pub fn step(id: impl Into<String>, kind: Kind) -> Box<dyn Step> {
        Box::new(Self { id: id.into(), kind })
    }

    fn wrong(&self, secret: &Secret) -> Option<&'static str> {
        match &self.kind {
            Kind::Password => None,
            Kind::Account(name) => {
                let fits =
                    secret.expose().split_once(':').is_some_and(|(user, rest)| user == *name && !rest.is_empty());
                (!fits).then_some("not an account and its password")
            }
            Kind::Given(given) => (given != secret).then_some("another content"),
        }
    }
}

impl Step for CredentialFile {
    fn name(&self) -> String {
        format!("credential {}", self.id)
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let Some(secret) = credential(&self.id)? else { return Ok(State::due("new")) };
            if let Some(wrong) = self.wrong(&secret) {
                return Ok(State::due(wrong));
            }
            if !Access::SECRET.holds(&credential_path(&self.id))? {
                return Ok(State::due("owner or permissions"));
            }
            Ok(State::Ok)
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let kept = credential(&self.id)?.filter(|secret| self.wrong(secret).is_none());
            let text = match (kept, &self.kind) {
                (Some(secret), _) => secret.expose().to_owned(),
                (None, Kind::Password) => random_hex(24),
                (None, Kind::Account(name)) => format!("{name}:{}", random_hex(24)),
                (None, Kind::Given(secret)) => secret.expose().to_owned(),
            };
            write_credential(&self.id, &text)
        })
    }
}

/// A service credential on this machine: kept if it is one of this name, made otherwise.
pub fn service_credential(id: &str, name: &str) -> Result<Option<Credential>, SetupError> {
    let parsed = credential(id)?.and_then(|text| text.expose().parse::<Credential>().ok());
    Ok(parsed.filter(|credential| credential.kind == CredentialKind::Service && credential.name == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_credential_names_its_account() {
        let step = CredentialFile { id: "registry-push".into(), kind: Kind::Account("dinp-push") };
        assert_eq!(step.wrong(&Secret::new("dinp-push:x")), None);
        assert!(step.wrong(&Secret::new("dinp-push:")).is_some());
        assert!(step.wrong(&Secret::new("other:x")).is_some());
    }

    #[tokio::test]
    async fn missing_programs_are_named_with_their_packages() {
        let step =
            Programs { wanted: vec![("Nothing", &["no-such-program"], "nothing-server"), ("sh", &["sh"], "dash")] };
        let error = step.check().await.unwrap_err().to_string();
        assert_eq!(error, "Nothing is not installed: apt-get install nothing-server");
    }
}
