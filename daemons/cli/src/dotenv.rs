//! Files of environment variables, as people know them by the name `.env`.
//!
//! One `NAME=VALUE` a line; `export` before it, empty lines and lines that begin with `#` mean nothing. A value is
//! taken as it stands, without blanks around it and up to ` #`. Between single quotes it is taken to the letter, between
//! double quotes `\n`, `\r` and `\t` are characters, `\"`, `\\` and `\$` what follows the backslash, and any other
//! backslash stays; both may span lines. Nothing is expanded: a `$` is a `$`.

use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use dinp_common::model::EnvName;

use crate::error::CliError;

/// Reads a file; a name that comes twice has the value that comes last. Errors name file and line, never a value.
pub fn read(path: &Path) -> Result<Vec<(EnvName, String)>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| CliError::file("read", path, error))?;
    parse(&text).map_err(|(line, rule)| {
        CliError::refused(format!("{} line {line}: {rule}", path.display()), "write NAME=VALUE, one a line")
    })
}

/// The variables of a text, or the line that is none and why.
fn parse(text: &str) -> Result<Vec<(EnvName, String)>, (usize, String)> {
    let mut reader = Reader { chars: text.chars().peekable(), line: 1 };
    let mut variables = Vec::new();
    while reader.skip_to_name() {
        let line = reader.line;
        variables.push(reader.variable().map_err(|rule| (line, rule))?);
    }
    Ok(variables)
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Takes characters up to one of these, which stays.
    fn until(&mut self, ends: &[char]) -> String {
        let mut taken = String::new();
        while let Some(next) = self.chars.next_if(|next| !ends.contains(next)) {
            taken.push(next);
        }
        taken
    }

    /// Goes on to where a name begins; false at the end.
    fn skip_to_name(&mut self) -> bool {
        loop {
            match self.chars.peek() {
                None => return false,
                Some('#') => drop(self.until(&['\n'])),
                Some(blank) if blank.is_whitespace() || *blank == '\u{feff}' => drop(self.next()),
                Some(_) => return true,
            }
        }
    }

    fn variable(&mut self) -> Result<(EnvName, String), String> {
        let name = self.until(&['=', '\n']);
        let name = name.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        if self.next() != Some('=') {
            return Err("there is no = after the name".into());
        }
        let name: EnvName = name.parse().map_err(|error: dinp_common::model::InvalidValue| error.to_string())?;
        while self.chars.next_if(|next| matches!(next, ' ' | '\t')).is_some() {}
        let value = match self.chars.peek() {
            Some('\'') => self.quoted('\''),
            Some('"') => self.quoted('"'),
            _ => return Ok((name, unquoted(&self.until(&['\n'])))),
        }
        .map_err(|rule| format!("the value of {name} {rule}"))?;
        let rest = self.until(&['\n']);
        match rest.trim_start() {
            "" => Ok((name, value)),
            comment if comment.starts_with('#') => Ok((name, value)),
            _ => Err(format!("the value of {name} goes on after its closing quote")),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, &'static str> {
        self.next();
        let mut value = String::new();
        loop {
            match self.next() {
                None => return Err("has no closing quote"),
                Some(end) if end == quote => return Ok(value),
                Some('\\') if quote == '"' => value.push_str(&self.escaped()?),
                Some(other) => value.push(other),
            }
        }
    }

    fn escaped(&mut self) -> Result<String, &'static str> {
        Ok(match self.next().ok_or("has no closing quote")? {
            'n' => "\n".into(),
            'r' => "\r".into(),
            't' => "\t".into(),
            plain @ ('"' | '\\' | '$') => plain.into(),
            other => format!("\\{other}"),
        })
    }
}

/// A value without quotes: blanks around it and a comment after it do not belong to it.
fn unquoted(text: &str) -> String {
    let end = text.match_indices('#').map(|(at, _)| at).find(|at| *at == 0 || text[..*at].ends_with([' ', '\t']));
    text[..end.unwrap_or(text.len())].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    #[test]
    fn values_are_what_people_mean() {
        for (line, value) in [
            ("A=1", "1"),
            ("  export A = two words  ", "two words"),
            ("A=", ""),
            ("A=# nothing", ""),
            ("A=a#b # comment", "a#b"),
            ("A=$HOME/@x", "$HOME/@x"),
            ("A='$x \\n # \"' # comment", "$x \\n # \""),
            (r#"A="say \"hi\"\tand \\n\$x\d""#, "say \"hi\"\tand \\n$x\\d"),
            ("A=\"-----BEGIN\nEND\n\"", "-----BEGIN\nEND\n"),
            ("A=b\r", "b"),
            ("A=mysql://u:p@db/x?a=b", "mysql://u:p@db/x?a=b"),
        ] {
            assert_eq!(read(line), [("A".to_owned(), value.to_owned())], "{line}");
        }
        let all = read("\u{feff}# first\n\nA=1\nB='x\ny'\n  # more\nA=2");
        let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(all, [("A", "1"), ("B", "x\ny"), ("A", "2")]);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_without_the_value() {
        for (text, line, rule) in [
            ("A=1\n\ns3cret\n", 3, "there is no = after the name"),
            ("A=1\n1A=s3cret", 2, "environment variable \"1A\" is not valid"),
            ("A='x\ny'\nB=\"s3cret\n\n", 3, "the value of B has no closing quote"),
            ("A='x's3cret", 1, "the value of A goes on after its closing quote"),
        ] {
            let (at, told) = parse(text).unwrap_err();
            assert!(at == line && told.starts_with(rule) && !told.contains("s3cret"), "{text}: line {at}: {told}");
        }
    }
}
