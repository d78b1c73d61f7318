//! In which form a client wants to read the router's own pages.

use crate::codec::fields;

/// A form that a page can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    /// A line of text.
    #[default]
    Text,
    /// A page for a browser.
    Html,
    /// A problem by RFC 9457, for a program.
    Json,
}

impl Form {
    /// Media types with which it answers, and those that ask for it as well.
    fn types(self) -> &'static [&'static [u8]] {
        match self {
            Self::Text => &[b"text/plain"],
            Self::Html => &[b"text/html", b"application/xhtml+xml"],
            Self::Json => &[b"application/json", b"application/problem+json"],
        }
    }

    /// What `Accept` of these header lines prefers (RFC 9110, 12.5.1): the highest quality, then what is named more exactly,
    /// then what is named first. Text where all is equal, or nothing fits: a page is better than none.
    pub(crate) fn preferred(lines: &[u8]) -> Self {
        let accept = || fields(lines).filter(|(name, _)| name.eq_ignore_ascii_case(b"accept"));
        let ranges = || accept().flat_map(|(_, list)| list.split(|byte| *byte == b',')).map(Range::parse);
        let wish = |form: Self| {
            let found =
                ranges().enumerate().filter_map(|(place, range)| Some((range.fits(form)?, range.quality, place)));
            // The most exact range counts, whatever a wider one says.
            let (exactness, quality, place) =
                found.max_by_key(|(exactness, _, place)| (*exactness, usize::MAX - place))?;
            (quality > 0).then_some((quality, exactness, usize::MAX - place))
        };
        let mut best = (Self::Text, wish(Self::Text));
        for form in [Self::Html, Self::Json] {
            let wish = wish(form);
            if wish > best.1 {
                best = (form, wish);
            }
        }
        best.0
    }
}

/// One range of media types.
struct Range<'a> {
    kind: &'a [u8],
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a [u8]) -> Self {
        let mut parts = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kind = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
        Self { kind, quality: quality.map_or(1000, thousandths) }
    }

    /// How exactly it names a form; none where it does not.
    fn fits(&self, form: Form) -> Option<u8> {
        let is = |other: &[u8]| self.kind.eq_ignore_ascii_case(other);
        let is_group_of = |kind: &[u8]| {
            let group = kind.split_inclusive(|byte| *byte == b'/').next().unwrap_or_default();
            self.kind.strip_suffix(b"*").is_some_and(|begin| begin.eq_ignore_ascii_case(group))
        };
        match form.types() {
            types if types.iter().any(|kind| is(kind)) => Some(2),
            // By the one that it is answered with.
            types if types.first().is_some_and(|kind| is_group_of(kind)) => Some(1),
            _ => is(b"*/*").then_some(0),
        }
    }
}

/// A quality: `1`, `0.8`, `0.125`. What is none counts for nothing.
fn thousandths(text: &[u8]) -> u16 {
    let quality = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok()).unwrap_or(0.0);
    (quality.clamp(0.0, 1.0) * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preferred() {
        for (accept, expected) in [
            ("*/*", Form::Text),
            ("", Form::Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Form::Html),
            ("application/json, text/plain, */*", Form::Json),
            ("text/plain, application/json", Form::Text),
            ("application/json;q=0.5, text/html;q=0.4", Form::Json),
            ("text/html;q=0.4, application/json;q=0.5", Form::Json),
            ("application/problem+json", Form::Json),
            ("APPLICATION/JSON", Form::Json),
            ("text/*", Form::Text),
            ("text/*, text/plain;q=0", Form::Html),
            ("application/*", Form::Json),
            ("image/png", Form::Text),
            ("*/*, text/plain;q=0.1", Form::Html),
            ("text/html;q=x", Form::Text),
            ("text/html;q=nan", Form::Text),
            ("text/html;level=1;q=0", Form::Text),
        ] {
            assert_eq!(Form::preferred(format!("Accept: {accept}\r\n\r\n").as_bytes()), expected, "{accept}");
        }
        assert_eq!(Form::preferred(b"GET /a:b HTTP/1.1\r\nHost: a.x\r\n\r\n"), Form::Text);
        assert_eq!(Form::preferred(b"accept: text/plain;q=0.1\r\nAccept: text/html\r\n\r\n"), Form::Html);
    }
}
