//! Dockerfile templates: fixed placeholders, checked values, and nothing else.
//!
//! A template is a Dockerfile of the operator. `{{name}}` stands for a value; there are no conditions and no
//! loops. Values are of letters, digits and `._:/@-` and do not begin with `-`, so none can add a line, an option or a variable.

use std::collections::BTreeMap;

/// What a template may ask for, by placeholder.
pub type Values<'a> = BTreeMap<&'static str, &'a str>;

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The first instruction is another one.
    #[error("line {0}: the first instruction must be FROM {{{{base}}}}")]
    First(usize),
    /// A placeholder has no end.
    #[error("line {0}: {{{{ without }}}}")]
    Open(usize),
    /// A placeholder is unknown.
    #[error("line {line}: unknown placeholder {name}; there are {known}")]
    Unknown {
        /// Where.
        line: usize,
        /// What it says.
        name: String,
        /// What it could say.
        known: String,
    },
    /// A value could be more than a value.
    #[error("the value of {name} holds a character that is not allowed in a Dockerfile, or begins as an option does")]
    Value {
        /// The placeholder.
        name: &'static str,
    },
}

/// A template that has been read and is sound.
#[derive(Debug, Clone)]
pub struct Template {
    lines: Vec<String>,
    from: usize,
}

/// The placeholders that there are.
pub const PLACEHOLDERS: [&str; 5] = ["app", "app_dir", "base", "runtime", "version"];

impl Template {
    /// Checks a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let is_instruction = |line: &&String| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let from = lines.iter().position(|line| is_instruction(&line)).unwrap_or(0);
        if lines.get(from).map(|line| line.trim()) != Some("FROM {{base}}") {
            return Err(TemplateError::First(from + 1));
        }
        // Comments above FROM can be directives, which change how the rest is read.
        let lines = lines.split_off(from);
        let template = Self { lines, from };
        let nothing: Values<'_> = PLACEHOLDERS.iter().map(|name| (*name, "")).collect();
        template.fill(&nothing)?;
        Ok(template)
    }

    /// The Dockerfile for these values, with `labels` on the image and everything below it.
    pub fn render(&self, values: &Values<'_>, labels: &[(&'static str, String)]) -> Result<String, TemplateError> {
        let checked = values.iter().map(|(name, value)| (*name, *value));
        let labels_checked = labels.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in checked.chain(labels_checked) {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b);
            if value.is_empty() || value.starts_with('-') || !value.bytes().all(allowed) {
                return Err(TemplateError::Value { name });
            }
        }
        let mut lines = self.fill(values)?.into_iter();
        let mut text: String = lines.next().map(|from| from + "\n").unwrap_or_default();
        if !labels.is_empty() {
            // One instruction: each makes an image, and all of a build can be told by all of the labels.
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            text += &format!("LABEL {}\n", labels.join(" "));
        }
        lines.for_each(|line| text += &(line + "\n"));
        Ok(text)
    }

    fn fill(&self, values: &Values<'_>) -> Result<Vec<String>, TemplateError> {
        let number = |index: usize| self.from + index + 1;
        self.lines.iter().enumerate().map(|(index, line)| fill_line(line, number(index), values)).collect()
    }
}

fn fill_line(line: &str, number: usize, values: &Values<'_>) -> Result<String, TemplateError> {
    let mut filled = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or(TemplateError::Open(number))?;
        let Some(value) = values.get(name.trim()) else {
            let known = values.keys().copied().collect::<Vec<_>>().join(", ");
            return Err(TemplateError::Unknown { line: number, name: name.trim().to_owned(), known });
        };
        filled += before;
        filled += value;
        rest = after;
    }
    Ok(filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values<'a>(base: &'a str, version: &'a str) -> Values<'a> {
        Values::from([("app", "web"), ("app_dir", "/app"), ("base", base), ("runtime", "python"), ("version", version)])
    }

    #[test]
    fn placeholders_are_filled_and_labels_come_first() {
        let template = Template::parse("# ours\n\nFROM {{base}}\nCOPY app/ {{ app_dir }}/\n").unwrap();
        let text = template.render(&values("r:5000/b:1", "v1"), &[("dinp.app", "web".into())]).unwrap();
        assert_eq!(text, "FROM r:5000/b:1\nLABEL dinp.app=\"web\"\nCOPY app/ /app/\n");
    }

    #[test]
    fn unsound_templates_are_named() {
        let error = |text: &str| Template::parse(text).unwrap_err().to_string();
        assert_eq!(error(""), "line 1: the first instruction must be FROM {{base}}");
        assert_eq!(error("# x\nRUN true\n"), "line 2: the first instruction must be FROM {{base}}");
        assert_eq!(error("FROM {{base}}\nCOPY {{app\n"), "line 2: {{ without }}");
        assert_eq!(
            error("FROM {{base}}\n\nCOPY {{user}} .\n"),
            "line 3: unknown placeholder user; there are app, app_dir, base, runtime, version"
        );
    }

    #[test]
    fn no_value_can_add_an_instruction() {
        let template = Template::parse("FROM {{base}}\nLABEL v={{version}}\n").unwrap();
        for bad in ["", "v1\nRUN id", "v1 --x", "--x", "$(id)", "`id`", "v\\", "\"", "v1#", "{{base}}", "ä"] {
            let error = template.render(&values("b", bad), &[]).unwrap_err();
            assert_eq!(error, TemplateError::Value { name: "version" }, "{bad:?}");
            assert!(template.render(&values("b", "v"), &[("l", bad.to_owned())]).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_number_of_instructions_never_changes(version in any::<String>(), base in any::<String>()) {
            let template = Template::parse("FROM {{base}}\nLABEL v={{version}}\n").unwrap();
            if let Ok(text) = template.render(&values(&base, &version), &[]) {
                prop_assert_eq!(text.lines().count(), 2);
                prop_assert!(text.lines().all(|line| line.split(' ').count() == 2));
            }
        }
    }
}
