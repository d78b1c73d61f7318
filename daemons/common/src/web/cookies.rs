//! Cookies of a daemon with pages.

use http::{HeaderMap, HeaderValue, header};
use url::Url;

/// The cookies of one daemon, by the address at which browsers reach it.
///
/// Where that is `https`, they go over TLS only, and their names begin with `__Host-`: browsers take such a cookie from
/// this very host alone, so that no other host of the same domain can plant one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookies {
    secure: bool,
}

impl Cookies {
    /// Those of the daemon at this address.
    pub fn at(public_url: &Url) -> Self {
        Self { secure: public_url.scheme() == "https" }
    }

    /// What the browser knows a cookie as.
    fn full(self, name: &str) -> String {
        let prefix = if self.secure { "__Host-" } else { "" };
        format!("{prefix}{name}")
    }

    /// The value of a cookie in a request.
    pub fn get<'a>(self, headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        let name = self.full(name);
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// A `Set-Cookie` value for a cookie that scripts cannot read and other sites do not send along with forms.
    ///
    /// `value` must be made of letters, digits and the signs `:._-`.
    pub fn set(self, name: &str, value: &str, max_age_secs: u64) -> HeaderValue {
        let (name, secure) = (self.full(name), if self.secure { "; Secure" } else { "" });
        let text = format!("{name}={value}; Path=/; Max-Age={max_age_secs}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// A `Set-Cookie` value that takes a cookie away.
    pub fn remove(self, name: &str) -> HeaderValue {
        self.set(name, "", 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(line: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, line.parse().unwrap())])
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let plain = Cookies::at(&Url::parse("http://dash.example:1985").unwrap());
        let headers = sent("xdinp=1; dinp=a:b; dinpx=2");
        assert_eq!((plain.get(&headers, "dinp"), plain.get(&headers, "din")), (Some("a:b"), None));
        assert_eq!(plain.set("dinp", "a:b", 60), "dinp=a:b; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn behind_tls_a_cookie_is_of_this_host_alone() {
        let tls = Cookies::at(&Url::parse("https://dash.example").unwrap());
        let set = tls.set("dinp", "a:b", 60);
        assert_eq!(set, "__Host-dinp=a:b; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(tls.remove("dinp"), "__Host-dinp=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure");
        // What a neighbour has planted for the whole domain does not count.
        assert_eq!(tls.get(&sent("dinp=planted; __Host-dinp=own"), "dinp"), Some("own"));
        assert_eq!(tls.get(&sent("dinp=planted"), "dinp"), None);
    }
}
