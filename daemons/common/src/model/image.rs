//! References to images in a registry.

use super::InvalidValue;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const RULE: &str =
    "it must be registry/path:tag or registry/path@sha256:<64 hex>, such as registry.example:5000/team/app:v1";

/// Label of an image that was built for an app: its name.
pub const IMAGE_APP_LABEL: &str = "dinp.image.app";

/// Owner of the base images: the platform itself.
pub const PLATFORM_OWNER: &str = "dinp";

/// Reference to an image: `registry/repository`, then `:tag` or `@sha256:digest` or both.
///
/// The registry is always named, so that nothing is ever pulled from a default one.
/// Grammar: the distribution specification's references.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageRef {
    /// Host and port of the registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Whose it is: the first part of a path of several parts.
    pub fn owner(&self) -> Option<&str> {
        self.repository.split_once('/').map(|(owner, _)| owner)
    }

    /// The tag, where one is given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest (`sha256:...`), where one is given.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What the registry is asked for: the digest, else the tag, else `latest`.
    pub fn reference(&self) -> &str {
        self.digest().or(self.tag()).unwrap_or("latest")
    }

    /// The image of the same repository under another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidValue> {
        format!("{}/{}:{tag}", self.registry, self.repository).parse()
    }

    /// What its tag points to, whatever that is.
    pub fn without_digest(&self) -> Self {
        Self { digest: None, ..self.clone() }
    }

    /// The same image by digest; fails where the digest is malformed.
    pub fn with_digest(&self, digest: &str) -> Result<Self, InvalidValue> {
        if !is_digest(digest) {
            return Err(InvalidValue::new("image digest", digest, "it must be sha256: and 64 hexadecimal digits"));
        }
        Ok(Self { digest: Some(digest.to_owned()), ..self.clone() })
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_host = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_repository(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text.split('/').all(|part| {
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            edge(part.chars().next())
                && edge(part.chars().next_back())
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
                && !part.contains("..")
        })
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !text.starts_with(['.', '-'])
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

impl FromStr for ImageRef {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || InvalidValue::new("image", text, RULE);
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) if is_digest(digest) => (named, Some(digest.to_owned())),
            Some(_) => return Err(invalid()),
            None => (text, None),
        };
        let (registry, path) = named.split_once('/').ok_or_else(invalid)?;
        let looks_like_host = registry.contains(['.', ':']) || registry == "localhost";
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => return Err(invalid()),
            None => (path, None),
        };
        if !looks_like_host || !is_registry(registry) || !is_repository(repository) {
            return Err(invalid());
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag, digest })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart_and_put_together() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [
            "control:5000/team/app:v1".to_owned(),
            "registry.example/app".to_owned(),
            format!("localhost/app@{digest}"),
            format!("10.0.0.1:5000/a/b/c:v1.2_x@{digest}"),
        ] {
            assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), text);
        }
        let image: ImageRef = "control:5000/team/app:v1".parse().unwrap();
        assert_eq!((image.registry(), image.repository(), image.reference()), ("control:5000", "team/app", "v1"));
        assert_eq!(image.with_digest(&digest).unwrap().reference(), digest);
        assert_eq!(image.with_tag("trixie").unwrap().tag(), Some("trixie"));
        assert!(image.with_tag("a b").is_err() && image.with_tag("x@y").is_err() && image.with_tag("").is_err());
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            "app",
            "app:v1",
            "team/app:v1",
            "control:5000/",
            "control:5000/App",
            "control:5000/app:",
            "control:0/app",
            "control:5000/../app",
            "control:5000/app:v1 --rm",
            "control:5000/app@sha256:12",
            "-x.y/app",
            "x.y/a//b",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?}");
        }
    }
}
