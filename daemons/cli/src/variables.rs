//! Environment variables on the command line: values from the argument itself, a file or standard input.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use dinp_common::model::EnvName;

use crate::commands::sign::{secret_from_stdin, without_line_end};
use crate::dotenv;
use crate::error::CliError;

/// One variable with the source of its value.
#[derive(Clone)]
pub struct Assignment {
    name: EnvName,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Text(String),
    Stdin,
    File(String),
}

// A value may be a secret: nothing prints it.
impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=...", self.name)
    }
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, value)) = text.split_once('=') else {
            return Err("it must be NAME=VALUE, NAME=- or NAME=@FILE".into());
        };
        let name = name.parse().map_err(|error: dinp_common::model::InvalidValue| error.to_string())?;
        let value = match (value, value.strip_prefix('@')) {
            ("-", _) => Value::Stdin,
            // Twice: the value itself begins with it.
            (_, Some(text)) if text.starts_with('@') => Value::Text(text.into()),
            (_, Some(path)) => Value::File(path.into()),
            _ => Value::Text(value.into()),
        };
        Ok(Self { name, value })
    }
}

/// The variables of these files and assignments; an assignment counts over a file, what comes later over what came first.
pub fn values(files: &[PathBuf], assignments: &[Assignment]) -> Result<BTreeMap<EnvName, String>, CliError> {
    if assignments.iter().filter(|variable| matches!(variable.value, Value::Stdin)).count() > 1 {
        return Err(CliError::usage(
            "two variables cannot both come from standard input",
            "give one of them as NAME=@FILE",
        ));
    }
    let mut set = BTreeMap::new();
    for file in files {
        set.extend(dotenv::read(file)?);
    }
    for Assignment { name, value } in assignments {
        let value = match value {
            Value::Text(text) => text.clone(),
            Value::Stdin => secret_from_stdin(&format!("value of {name}"))?,
            Value::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| CliError::io(format!("read {path} for {name}"), error))?;
                without_line_end(text)
            }
        };
        set.insert(name.clone(), value);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_sources_and_are_never_printed() {
        let read = |text: &str| text.parse::<Assignment>();
        assert!(matches!(read("A=b=c").unwrap().value, Value::Text(text) if text == "b=c"));
        assert!(matches!(read("A=").unwrap().value, Value::Text(text) if text.is_empty()));
        assert!(matches!(read("A=-").unwrap().value, Value::Stdin));
        assert!(matches!(read("A=@x/y").unwrap().value, Value::File(path) if path == "x/y"));
        assert!(matches!(read("AT=@@handle").unwrap().value, Value::Text(text) if text == "@handle"));
        assert_eq!(format!("{:?}", read("A=secret").unwrap()), "A=...");
        assert!(read("1A=x").unwrap_err().contains("environment variable \"1A\" is not valid"));
        assert!(!read("secret").unwrap_err().contains("secret"));
        assert_eq!(values(&[], &[read("A=-").unwrap(), read("B=-").unwrap()]).unwrap_err().code(), 64);
    }
}
