//! Passwords: argon2id, off the runtime's threads, a few at a time.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use dinp_common::credentials::Secret;
use dinp_common::model::InvalidValue;
use dinp_common::problem::Problem;
use rand::TryRngCore;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Least number of characters.
pub const MIN_CHARS: usize = 10;
/// Most bytes.
const MAX_BYTES: usize = 512;
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Failure to hash or to compare.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The settings make no hash.
    #[error("set up password hashing")]
    Setup(#[source] argon2::Error),
    /// The hash could not be made.
    #[error("hash a password")]
    Hash(#[source] argon2::password_hash::Error),
    /// A stored hash cannot be read.
    #[error("read a stored password hash")]
    Stored(#[source] argon2::password_hash::Error),
    /// Too many at once.
    #[error("hash a password: too many sign-ons at once")]
    Busy,
    /// The hashing thread ended.
    #[error("hash a password")]
    Thread(#[source] tokio::task::JoinError),
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => {
                Problem::unavailable("busy", "too many people sign in at this moment; try again in a few seconds")
            }
            error => Problem::internal(&error),
        }
    }
}

/// Checks a new password against the rule.
pub fn check_new(password: &str) -> Result<(), InvalidValue> {
    if password.chars().count() >= MIN_CHARS && password.len() <= MAX_BYTES {
        return Ok(());
    }
    // The value itself must not be repeated.
    Err(InvalidValue::new(
        "password",
        "***",
        format!("it must have {MIN_CHARS} characters at least and {MAX_BYTES} bytes at most"),
    ))
}

/// A password that nobody has chosen.
pub fn generate() -> Secret {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0_u8; 20];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the kernel's random source works");
    let text: Vec<char> = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    let groups: Vec<String> = text.chunks(5).map(|group| group.iter().collect()).collect();
    Secret::new(groups.join("-"))
}

/// Hashes and compares passwords.
#[derive(Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    /// Compared with where there is no such user, so that the answer takes the same time.
    nobody: Arc<str>,
    turns: Arc<Semaphore>,
}

impl Passwords {
    /// Hashing with these settings.
    pub fn new(memory_kib: u32, passes: u32, parallel: u32) -> Result<Self, PasswordError> {
        let params = Params::new(memory_kib, passes, 1, None).map_err(PasswordError::Setup)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&argon2, generate().expose())?;
        Ok(Self { argon2, nobody: nobody.into(), turns: Arc::new(Semaphore::new(parallel as usize)) })
    }

    /// Hash of a password in PHC form.
    pub async fn hash(&self, password: Secret) -> Result<String, PasswordError> {
        let argon2 = self.argon2.clone();
        self.in_turn(move || hash(&argon2, password.expose())).await
    }

    /// Whether the password is the one of the stored hash; without one it is not, after the same time.
    pub async fn verify(&self, password: Secret, stored: Option<String>) -> Result<bool, PasswordError> {
        let argon2 = self.argon2.clone();
        let nobody = self.nobody.clone();
        self.in_turn(move || {
            let known = stored.is_some();
            let stored = stored.as_deref().unwrap_or(&nobody);
            let hash = PasswordHash::new(stored).map_err(PasswordError::Stored)?;
            match argon2.verify_password(password.expose().as_bytes(), &hash) {
                Ok(()) => Ok(known),
                Err(argon2::password_hash::Error::Password) => Ok(false),
                Err(error) => Err(PasswordError::Stored(error)),
            }
        })
        .await
    }

    async fn in_turn<T, F>(&self, work: F) -> Result<T, PasswordError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, PasswordError> + Send + 'static,
    {
        let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(PasswordError::Busy) };
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
        .map_err(PasswordError::Thread)?
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> Result<String, PasswordError> {
    let mut bytes = [0_u8; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the kernel's random source works");
    let salt = SaltString::encode_b64(&bytes).map_err(PasswordError::Hash)?;
    let hash = argon2.hash_password(password.as_bytes(), &salt).map_err(PasswordError::Hash)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_are_argon2id_and_differ_each_time() {
        let passwords = Passwords::new(64, 1, 2).unwrap();
        let first = passwords.hash(Secret::new("correct horse")).await.unwrap();
        let second = passwords.hash(Secret::new("correct horse")).await.unwrap();
        assert!(first.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{first}");
        assert_ne!(first, second);
        assert!(passwords.verify(Secret::new("correct horse"), Some(first.clone())).await.unwrap());
        assert!(!passwords.verify(Secret::new("wrong horse"), Some(first)).await.unwrap());
        assert!(!passwords.verify(Secret::new("correct horse"), None).await.unwrap());
    }

    #[test]
    fn short_passwords_are_refused_without_being_repeated() {
        assert!(check_new("0123456789").is_ok());
        let error = check_new("hunter2").unwrap_err().to_string();
        assert!(error.contains("10 characters") && !error.contains("hunter2"), "{error}");
        assert!(check_new(&"x".repeat(513)).is_err());
        assert!(check_new(generate().expose()).is_ok());
    }
}
