//! `config show`: what is in force, and which file says so.

use std::fmt::Write;

use serde::Serialize;
use toml::{Table, Value};

use super::{DaemonConfig, Loaded, Origins};

pub(super) fn show<C: DaemonConfig>(loaded: &Loaded<C>) -> String {
    let mut out = String::from("# cluster-wide\n");
    table(&mut out, &loaded.cluster, &loaded.origins);
    if let Ok(own) = Table::try_from(&loaded.daemon)
        && !own.is_empty()
    {
        let _infallible = writeln!(out, "\n# {}", loaded.name);
        write_table(&mut out, &own, "", &loaded.origins);
    }
    out
}

fn table<T: Serialize>(out: &mut String, config: &T, origins: &Origins) {
    if let Ok(table) = Table::try_from(config) {
        write_table(out, &table, "", origins);
    }
}

/// Plain keys first, then the tables below, as TOML wants it.
fn write_table(out: &mut String, table: &Table, prefix: &str, origins: &Origins) {
    let dotted = |key: &str| {
        if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
    };
    for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
        let origin = origins.get(&dotted(key)).map_or_else(|| "default".to_owned(), |path| path.display().to_string());
        let _infallible = writeln!(out, "{} = {}  # {origin}", quoted(key), inline(value));
    }
    for (key, value) in table {
        let Value::Table(below) = value else { continue };
        let name = dotted(key);
        let heading: Vec<String> = name.split('.').map(quoted).collect();
        let _infallible = writeln!(out, "\n[{}]", heading.join("."));
        write_table(out, below, &name, origins);
    }
}

fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}

fn inline(value: &Value) -> String {
    value.to_string()
}
