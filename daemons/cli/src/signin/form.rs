//! The login form in uic's page: just enough of HTML to fill it in as a browser would.

/// A form that asks for a password.
#[derive(Debug, PartialEq, Eq)]
pub struct LoginForm {
    /// Where it is sent to; empty: the page's own address.
    pub action: String,
    /// Fields that go along unseen.
    pub hidden: Vec<(String, String)>,
}

/// The first form of a page that has a field `password`.
pub fn find(page: &str) -> Option<LoginForm> {
    let mut form: Option<LoginForm> = None;
    let mut asks_password = false;
    for tag in tags(page) {
        match tag.name.as_str() {
            "form" => {
                form = Some(LoginForm { action: tag.attribute("action").unwrap_or_default(), hidden: Vec::new() });
                asks_password = false;
            }
            "/form" if asks_password => return form,
            "input" => {
                let name = tag.attribute("name").unwrap_or_default();
                asks_password |= name == "password";
                if let Some(form) = &mut form
                    && tag.attribute("type").is_some_and(|kind| kind.eq_ignore_ascii_case("hidden"))
                {
                    form.hidden.push((name, tag.attribute("value").unwrap_or_default()));
                }
            }
            _ => {}
        }
    }
    form.filter(|_| asks_password)
}

/// What a page says went wrong: the text of its element of role `alert`.
pub fn alert(page: &str) -> Option<String> {
    let tag = tags(page).find(|tag| tag.attribute("role").as_deref() == Some("alert"))?;
    let rest = &page[tag.end..];
    let inner = match rest.find(&format!("</{}", tag.name)) {
        Some(end) => &rest[..end],
        None => rest.split('<').next().unwrap_or_default(),
    };
    let mut text = String::new();
    let mut in_tag = false;
    for c in inner.chars() {
        match c {
            '<' => in_tag = true,
            '>' => in_tag = false,
            c if !in_tag => text.push(c),
            _ => {}
        }
    }
    let text = unescape(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    Some(text).filter(|text| !text.is_empty())
}

struct Tag<'a> {
    name: String,
    attributes: &'a str,
    /// Where the page goes on after it.
    end: usize,
}

impl Tag<'_> {
    fn attribute(&self, wanted: &str) -> Option<String> {
        let mut rest = self.attributes;
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
            if rest.is_empty() {
                return None;
            }
            let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '=' | '/')).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end.max(1));
            let after_name = after.trim_start();
            let value = match after_name.strip_prefix('=') {
                None => {
                    rest = after;
                    ""
                }
                Some(value) => {
                    let value = value.trim_start();
                    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
                    match quote.and_then(|quote| value[1..].split_once(quote)) {
                        Some((value, after)) => {
                            rest = after;
                            value
                        }
                        None => {
                            let end = value.find(char::is_whitespace).unwrap_or(value.len());
                            rest = &value[end..];
                            &value[..end]
                        }
                    }
                }
            };
            if name.eq_ignore_ascii_case(wanted) {
                return Some(unescape(value));
            }
        }
    }
}

fn tags(page: &str) -> impl Iterator<Item = Tag<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + page[at..].find('<')? + 1;
            if page[start..].starts_with("!--") {
                at = start + page[start..].find("-->")? + 3;
                continue;
            }
            let end = start + tag_end(&page[start..])?;
            at = end + 1;
            let tag = &page[start..end];
            let cut = tag.find(char::is_whitespace).unwrap_or(tag.len());
            let name = tag[..cut].trim_end_matches('/').to_ascii_lowercase();
            return Some(Tag { name, attributes: &tag[cut..], end: at });
        }
    })
}

/// Where a tag's `>` is, outside of quotes.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(index, c)| {
        match (quote, c) {
            (None, '>') => return Some(index),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        None
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let entity = rest.find(';').filter(|end| *end <= 10).and_then(|end| Some((end, entity(&rest[1..end])?)));
        match entity {
            Some((end, c)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_that_asks_for_a_password_is_found() {
        let page = r#"<!doctype html><!-- <form> --><form action="/search"><input name=q></form>
            <p class="error" role="alert">Name or <b>password</b>
              is wrong &amp; so on.</p>
            <form method="post" action="/login?next=%2Fa&#38;x=1">
            <input type="hidden" name="csrf" value="a&quot;b>c"><input type='HIDDEN' name='n' value=5 />
            <input name="username" required autofocus><input type="password" name="password"></form>"#;
        let hidden = vec![("csrf".to_owned(), "a\"b>c".to_owned()), ("n".to_owned(), "5".to_owned())];
        assert_eq!(find(page), Some(LoginForm { action: "/login?next=%2Fa&x=1".into(), hidden }));
        assert_eq!(alert(page).as_deref(), Some("Name or password is wrong & so on."));
    }

    #[test]
    fn a_page_without_such_a_form_has_none() {
        for page in ["", "<", "<p", "<form><input name=q></form>", "&", "<form action='", "<p role=alert>"] {
            assert_eq!(find(page), None, "{page}");
            assert_eq!(alert(page), None, "{page}");
        }
        assert_eq!(unescape("a&b;&#x41;&#65;&nothing;&"), "a&b;AA&nothing;&");
    }

    proptest::proptest! {
        #[test]
        fn no_page_makes_it_fail(page in "[<>/='\"&; !a-z-]{0,80}") {
            find(&page);
            alert(&page);
        }
    }
}
