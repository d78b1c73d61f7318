//! Reading the files one by one and laying them over each other.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use toml::de::DeTable;
use toml::{Spanned, Table, Value};

use super::error::nearest;
use super::{ClusterConfig, ConfigError, DaemonConfig, Origins};

/// `<name>.toml` and then `<name>.toml.d/*.toml` in order of their names; only what exists.
pub(super) fn files(dir: &Path, name: &str) -> Result<Vec<PathBuf>, ConfigError> {
    let main = dir.join(format!("{name}.toml"));
    let drop_ins = dir.join(format!("{name}.toml.d"));
    let mut found = Vec::new();
    match std::fs::read_dir(&drop_ins) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(|source| ConfigError::Read { path: drop_ins.clone(), source })?;
                let path = entry.path();
                let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
                    found.push(path);
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(ConfigError::Read { path: drop_ins, source });
        }
    }
    found.sort();
    found.insert(0, main);
    Ok(found)
}

/// All files so far, laid over each other.
#[derive(Default)]
pub(super) struct Merged {
    cluster: Table,
    own: Table,
    origins: Origins,
}

impl Merged {
    /// Adds a file with cluster-wide settings.
    pub(super) fn add_cluster_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let Some(text) = read(path)? else {
            return Ok(());
        };
        let file = File { path, text: &text };
        let table = file.parse()?;
        refuse_https(&file, table.get_ref())?;
        check::<ClusterConfig>(&file, table, &[])?;
        let values: Table = toml::from_str(&text).map_err(|error| file.value_error(&error))?;
        merge(&mut self.cluster, values, "", path, &mut self.origins);
        Ok(())
    }

    /// Adds a file of the daemon; what only the cluster-wide settings know goes to them.
    pub(super) fn add_daemon_file<C: DaemonConfig>(&mut self, path: &Path) -> Result<(), ConfigError> {
        let Some(text) = read(path)? else {
            return Ok(());
        };
        let file = File { path, text: &text };
        let own_keys = known_fields::<C>();
        let cluster_keys = known_fields::<ClusterConfig>();
        let shared = |key: &str| cluster_keys.contains(&key) && !own_keys.contains(&key);

        let mut own = file.parse()?;
        refuse_https(&file, own.get_ref())?;
        let mut cluster = Spanned::new(own.span(), DeTable::new());
        let moved: Vec<_> = own.get_ref().keys().filter(|key| shared(key.get_ref())).cloned().collect();
        for key in moved {
            if let Some(value) = own.get_mut().remove(&key) {
                cluster.get_mut().insert(key, value);
            }
        }
        check::<ClusterConfig>(&file, cluster, &[])?;
        check::<C>(&file, own, cluster_keys)?;

        let values: Table = toml::from_str(&text).map_err(|error| file.value_error(&error))?;
        let (cluster, own): (Table, Table) = values.into_iter().partition(|(key, _)| shared(key));
        merge(&mut self.cluster, cluster, "", path, &mut self.origins);
        merge(&mut self.own, own, "", path, &mut self.origins);
        Ok(())
    }

    /// The typed result.
    pub(super) fn finish<C: DaemonConfig>(self, dir: &Path) -> Result<(ClusterConfig, C, Origins), ConfigError> {
        fn typed<T: DeserializeOwned>(table: Table, dir: &Path) -> Result<T, ConfigError> {
            T::deserialize(Value::Table(table))
                .map_err(|error| ConfigError::Merged { dir: dir.to_owned(), problem: error.message().to_owned() })
        }
        Ok((typed(self.cluster, dir)?, typed(self.own, dir)?, self.origins))
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> File<'a> {
    fn parse(&self) -> Result<Spanned<DeTable<'a>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| self.value_error(&error))
    }

    fn line(&self, span: Option<Range<usize>>) -> usize {
        let start = span.map_or(0, |span| span.start.min(self.text.len()));
        self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn value_error(&self, error: &toml::de::Error) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            line: self.line(error.span()),
            problem: error.message().replace('\n', " "),
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// Checks one file against the struct. A key that is required is allowed to come from another file.
fn check<T: DeserializeOwned>(file: &File<'_>, table: Spanned<DeTable<'_>>, more: &[&str]) -> Result<(), ConfigError> {
    let Err(error) = T::deserialize(toml::de::Deserializer::from(table)) else {
        return Ok(());
    };
    let message = error.message();
    if message.starts_with("missing field") {
        return Ok(());
    }
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return Err(file.value_error(&error));
    };
    let (key, expected) = rest.split_once('`').unwrap_or((rest, ""));
    // serde lists the known fields of exactly this table, each in backticks.
    let known = expected.split('`').skip(1).step_by(2);
    let top_level = known.clone().eq(known_fields::<T>().iter().copied());
    let more = if top_level { more } else { &[] };
    Err(ConfigError::UnknownKey {
        path: file.path.to_owned(),
        line: file.line(error.span()),
        key: key.to_owned(),
        nearest: nearest(key, known.chain(more.iter().copied())),
    })
}

/// Daemons do not speak TLS yet, so an https:// address could never work, but where people go, a proxy may speak it.
fn refuse_https(file: &File<'_>, table: &DeTable<'_>) -> Result<(), ConfigError> {
    use toml::de::DeValue;
    fn find(value: &Spanned<DeValue<'_>>) -> Option<Range<usize>> {
        match value.get_ref() {
            DeValue::String(text) if text.starts_with("https://") => Some(value.span()),
            DeValue::Array(items) => items.iter().find_map(find),
            DeValue::Table(table) => {
                let called = table.iter().filter(|(key, _)| key.get_ref() != "public_url");
                called.map(|(_, value)| value).find_map(find)
            }
            _ => None,
        }
    }
    match table.values().find_map(find) {
        None => Ok(()),
        span => Err(ConfigError::Value {
            path: file.path.to_owned(),
            line: file.line(span),
            problem: "https:// is not supported yet (TLS), use http://".into(),
        }),
    }
}

fn merge(base: &mut Table, over: Table, prefix: &str, path: &Path, origins: &mut Origins) {
    for (key, value) in over {
        let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above, &dotted, path, origins),
            (_, Value::Table(above)) => {
                let mut below = Table::new();
                merge(&mut below, above, &dotted, path, origins);
                base.insert(key, Value::Table(below));
            }
            (_, value) => {
                origins.insert(dotted, path.to_owned());
                base.insert(key, value);
            }
        }
    }
}

/// The top-level fields of a struct, asked of its `Deserialize` implementation.
fn known_fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(serde::de::Error::custom("asked for fields only"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("not a struct"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // The answer is in `fields`; deserialising itself always ends with the error above.
    drop(T::deserialize(Ask(&mut fields)));
    fields
}
