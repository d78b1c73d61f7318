//! Host headers as keys of the table.

use std::borrow::Cow;

/// The key of a host: lower case, without port and without the dot of the root.
pub(crate) fn key(host: &str) -> Cow<'_, str> {
    let name = port_of(host).map_or(host, |port| &host[..host.len() - port.len()]);
    let name = name.trim_end_matches(':').trim_end_matches('.');
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The port, if one is named.
pub(crate) fn port_of(host: &str) -> Option<&str> {
    let (name, port) = host.rsplit_once(':')?;
    let inside_brackets = name.starts_with('[') && !name.ends_with(']');
    (!inside_brackets && !port.is_empty()).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (host, expected, port) in [
            ("a.x", "a.x", None),
            ("A.X:8080", "a.x", Some("8080")),
            ("a.x.", "a.x", None),
            ("a.x.:80", "a.x", Some("80")),
            ("a.x:", "a.x", None),
            ("[::1]", "[::1]", None),
            ("[::1]:80", "[::1]", Some("80")),
            ("", "", None),
        ] {
            assert_eq!((&*key(host), port_of(host)), (expected, port), "{host}");
        }
    }
}
