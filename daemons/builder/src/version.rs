//! What versions of apps are called.

use crate::problems;
use dinp_common::model::{AppName, ImageRef, InvalidValue};
use dinp_common::problem::Problem;
use jiff::Timestamp;

/// Between a version and the base that it was put on.
const BASE_MARK: &str = "-base.";

/// Checks a name that a person chose.
pub fn check(version: &str) -> Result<(), InvalidValue> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let valid = (1..=64).contains(&version.len()) && version.bytes().all(allowed) && !version.starts_with(['.', '-']);
    if valid {
        return Ok(());
    }
    let rule = "it must be 1 to 64 letters, digits, \".\", \"_\" and \"-\", and not start with \".\" or \"-\"";
    Err(InvalidValue::new("version", version, rule))
}

/// The name of a version that nobody named: when, and of which package.
pub fn default(now: Timestamp, sha256: &str) -> String {
    format!("{}-{}", now.strftime("%Y%m%d-%H%M%S"), sha256.get(..8).unwrap_or(sha256))
}

/// The name that the image of a version will have in a registry.
pub fn image(registry: &str, app: &AppName, owner: &str, version: &str) -> Result<ImageRef, Problem> {
    let owner = if owner.is_empty() { "apps" } else { owner };
    if owner.contains(['/', ':', '@']) {
        let detail = format!("owner \"{owner}\" is not valid: it must be the name of a user or team");
        return Err(Problem::unprocessable("invalid-query", detail).with("field", "owner"));
    }
    let text = format!("{}/{owner}/{app}:{version}", registry);
    text.parse().map_err(|error| problems::invalid("owner", error))
}

/// The name of a version on another base: its own, and the base's digest.
pub fn rebased(version: &str, digest: &str) -> String {
    let is_mark = |mark: &str| mark.len() == 8 && mark.bytes().all(|b| b.is_ascii_hexdigit());
    let own = version.rsplit_once(BASE_MARK).filter(|(_, mark)| is_mark(mark)).map_or(version, |(own, _)| own);
    let mark = digest.trim_start_matches("sha256:").get(..8).unwrap_or_default();
    format!("{}{BASE_MARK}{mark}", own.get(..64 - BASE_MARK.len() - mark.len()).unwrap_or(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_versions() {
        let now: Timestamp = "2026-11-22T17:55:00Z".parse().unwrap();
        let made = default(now, "0123456789abcdef");
        assert_eq!(made, "20261122-175500-01234567");
        let digest = format!("sha256:{}", "c0ffee12".repeat(8));
        assert_eq!(rebased("v1", &digest), "v1-base.c0ffee12");
        assert_eq!(rebased("v1-base.00000000", &digest), "v1-base.c0ffee12", "once, however often");
        assert!(check(&rebased(&"v".repeat(64), &digest)).is_ok());
        let long = "v".repeat(65);
        assert!(check(&made).is_ok() && check("v1.2_x-3").is_ok());
        for bad in ["", ".v", "-v", "v 1", "v;id", "$(id)", "v/1", "v:1", "ä", "v\n", &long] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
