//! `Forwarded` (RFC 7239), for apps that want it: it says the same as `X-Forwarded-*`.
//!
//! Its first element is the client's. What a trusted proxy says in `Forwarded` is kept, and the router's element follows;
//! of one that speaks `X-Forwarded-*` alone the elements are made, so that no app finds the two in contradiction.

use std::net::IpAddr;

/// What trusted proxies have said of a request; nothing where nobody is trusted.
#[derive(Default)]
pub(super) struct Said<'a> {
    /// The values of their `Forwarded`, each with a comma after it.
    pub(super) forwarded: Vec<u8>,
    /// The same of `X-Forwarded-For`.
    pub(super) chain: &'a [u8],
    pub(super) proto: Option<&'a [u8]>,
    pub(super) host: Option<&'a [u8]>,
}

/// The value for the app; `client` and `host` are of the request that the router got.
pub(super) fn value(said: &Said<'_>, client: &str, host: &str) -> Vec<u8> {
    let mut value = said.forwarded.clone();
    if value.is_empty() {
        let proxies = said.chain.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|node| !node.is_empty());
        for (number, node) in proxies.enumerate() {
            element(&mut value, node);
            // What the first proxy was asked by.
            if number == 0 {
                pair(&mut value, "proto", said.proto);
                pair(&mut value, "host", said.host);
            }
            value.extend_from_slice(b", ");
        }
    }
    element(&mut value, client.as_bytes());
    pair(&mut value, "proto", Some(b"http"));
    pair(&mut value, "host", Some(host.as_bytes()));
    value
}

/// `for=` an address; of what is none, that nothing is known.
fn element(value: &mut Vec<u8>, node: &[u8]) {
    let address = std::str::from_utf8(node).ok().and_then(|text| text.parse::<IpAddr>().ok());
    let text = match address {
        Some(IpAddr::V4(address)) => format!("for={address}"),
        Some(IpAddr::V6(address)) => format!("for=\"[{address}]\""),
        None => "for=unknown".to_owned(),
    };
    value.extend_from_slice(text.as_bytes());
}

/// A further pair, quoted; what would end the quotes is left out with it.
fn pair(value: &mut Vec<u8>, name: &str, text: Option<&[u8]>) {
    let is_plain =
        |text: &&[u8]| !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\,;".contains(byte));
    if let Some(text) = text.filter(is_plain) {
        value.extend_from_slice(format!(";{name}=\"").as_bytes());
        value.extend_from_slice(text);
        value.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &Said<'_>, client: &str) -> String {
        String::from_utf8(value(said, client, "a.x:8080")).unwrap()
    }

    #[test]
    fn it_says_what_is_said_in_the_other_headers() {
        let own = "for=192.0.2.7;proto=\"http\";host=\"a.x:8080\"";
        assert_eq!(told(&Said::default(), "192.0.2.7"), own);
        assert_eq!(told(&Said::default(), "2001:db8::7"), own.replace("192.0.2.7", "\"[2001:db8::7]\""));
        let said = Said {
            chain: b"203.0.113.9, 2001:db8::1, ",
            proto: Some(b"https"),
            host: Some(b"shop.example"),
            ..Said::default()
        };
        let expected = format!("for=203.0.113.9;proto=\"https\";host=\"shop.example\", for=\"[2001:db8::1]\", {own}");
        assert_eq!(told(&said, "192.0.2.7"), expected);
        let said =
            Said { forwarded: b"for=_hidden;proto=https, ".to_vec(), chain: b"203.0.113.9, ", ..Said::default() };
        assert_eq!(told(&said, "192.0.2.7"), format!("for=_hidden;proto=https, {own}"));
    }

    #[test]
    fn nothing_that_was_said_ends_an_element() {
        let said = Said {
            chain: b"\"x;, 203.0.113.9:80, ",
            proto: Some(b"https\", for=1.1.1.1"),
            host: Some(b"a b"),
            ..Said::default()
        };
        let expected = "for=unknown, for=unknown, for=192.0.2.7;proto=\"http\";host=\"a.x:8080\"";
        assert_eq!(told(&said, "192.0.2.7"), expected);
    }
}
