//! Templates: what values can add to a Dockerfile.

use crate::template::{PLACEHOLDERS, Template, Values};

/// Between the parts of an input.
const SEPARATOR: char = '\0';

/// Whatever the values are, a Dockerfile has the template's own lines, and in each its own words: an input is a template, then
/// a value for each placeholder and one for a label, with a NUL byte before each. Where values are missing they are harmless.
pub fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split(SEPARATOR);
    let Ok(template) = Template::parse(parts.next().unwrap_or_default()) else { return };
    let mut values: Values<'_> = PLACEHOLDERS.iter().map(|name| (*name, "x")).collect();
    let harmless = template.render(&values, &[("label", "x".into())]).expect("values of one letter are taken");
    values.values_mut().zip(parts.by_ref()).for_each(|(value, given)| *value = given);
    let label = parts.next().unwrap_or("x");
    let Ok(rendered) = template.render(&values, &[("label", label.to_owned())]) else { return };

    assert_eq!(rendered.lines().count(), harmless.lines().count(), "{rendered:?}");
    for (line, own) in rendered.lines().zip(harmless.lines()) {
        let (words, own_words): (Vec<&str>, Vec<&str>) = (words(line), words(own));
        assert_eq!(words.len(), own_words.len(), "{line:?}");
        for (word, own) in words.iter().zip(own_words) {
            assert_eq!(word.starts_with('-'), own.starts_with('-'), "{word:?} in {line:?}");
        }
        for sign in ['\\', '$', '#', '"', '\'', '`', '<', '=', '{', '[', ','] {
            assert_eq!(line.matches(sign).count(), own.matches(sign).count(), "{sign} in {line:?}");
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
