//! Sealing of environment values: anybody with the public key can seal, the server alone can open.
//!
//! Format: libsodium's sealed box (X25519, XSalsa20-Poly1305, a fresh sender key for each value).

use crate::auth::{from_hex, hex};
use crypto_box::aead::OsRng;
use crypto_box::{PublicKey, SecretKey};

/// Failure to open a sealed value.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The value was sealed to another key, or was changed.
    #[error("open a sealed value: it was sealed to another key or was changed")]
    Open,
    /// The key is not 32 bytes in hexadecimal.
    #[error("read the sealing key: it must be 64 hexadecimal digits")]
    Key,
    /// The value is not text.
    #[error("open a sealed value: it is not UTF-8 text")]
    Text,
    /// The value could not be sealed.
    #[error("seal a value")]
    Seal,
}

/// The private half of a sealing key.
pub struct OpeningKey(SecretKey);

impl OpeningKey {
    /// A fresh key.
    pub fn generate() -> Self {
        Self(SecretKey::generate(&mut OsRng))
    }

    /// Reads what [`OpeningKey::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let bytes = from_hex(text.trim()).ok_or(SealError::Key)?;
        Ok(Self(SecretKey::from_bytes(bytes)))
    }

    /// The key as 64 hexadecimal digits, for a credential file.
    pub fn to_hex(&self) -> crate::credentials::Secret {
        crate::credentials::Secret::new(hex(&self.0.to_bytes()))
    }

    /// The public half, as stored in `sealing_key`.
    pub fn public_key(&self) -> [u8; 32] {
        *self.0.public_key().as_bytes()
    }

    /// Opens a value.
    pub fn open(&self, sealed: &[u8]) -> Result<String, SealError> {
        let bytes = self.0.unseal(sealed).map_err(|_| SealError::Open)?;
        String::from_utf8(bytes).map_err(|_| SealError::Text)
    }
}

/// Seals a value to a public key.
pub fn seal(public_key: &[u8; 32], value: &str) -> Result<Vec<u8>, SealError> {
    PublicKey::from_bytes(*public_key).seal(&mut OsRng, value.as_bytes()).map_err(|_| SealError::Seal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_private_key_opens() {
        let key = OpeningKey::generate();
        let sealed = seal(&key.public_key(), "s3cret").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"s3cret"));
        assert_eq!(OpeningKey::from_hex(key.to_hex().expose()).unwrap().open(&sealed).unwrap(), "s3cret");
        assert!(matches!(OpeningKey::generate().open(&sealed), Err(SealError::Open)));
        assert!(OpeningKey::from_hex("12").is_err());
    }
}
