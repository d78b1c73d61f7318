//! Columns of a row as values: what cannot be read is an error that names table, key and column.

use super::StoreError;
use mysql_async::Row;
use mysql_async::prelude::FromValue;
use std::fmt::Display;
use std::str::FromStr;

/// A row and what it is, for errors.
pub(crate) struct Columns<'a> {
    row: &'a Row,
    table: &'static str,
    key: &'static str,
}

impl<'a> Columns<'a> {
    /// A row of this table; `key` is the column that names it.
    pub(crate) fn new(row: &'a Row, table: &'static str, key: &'static str) -> Self {
        Self { row, table, key }
    }

    /// The value of a column.
    pub(crate) fn get<T: FromValue>(&self, column: &'static str) -> Result<T, StoreError> {
        match self.row.get_opt::<T, _>(column) {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(self.corrupt(column, &error)),
            None => Err(self.corrupt(column, &"no such column")),
        }
    }

    /// The value of a text column as a checked type.
    pub(crate) fn parse<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.get::<String>(column)?.parse().map_err(|error| self.corrupt(column, &error))
    }

    /// The bytes of a column that holds so many.
    pub(crate) fn bytes<const N: usize>(&self, column: &'static str) -> Result<[u8; N], StoreError> {
        let bytes: Vec<u8> = self.get(column)?;
        bytes.try_into().map_err(|_| self.corrupt(column, &format!("it is not {N} bytes")))
    }

    /// The word of an ENUM column, by the name that its type has on the wire.
    pub(crate) fn word<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        let word: String = self.get(column)?;
        serde_json::from_value(serde_json::Value::String(word)).map_err(|error| self.corrupt(column, &error))
    }

    /// The document of a JSON column that may be NULL.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| self.corrupt(column, &error))).transpose()
    }

    /// What a column holds cannot be.
    pub(crate) fn corrupt(&self, column: &'static str, problem: &dyn Display) -> StoreError {
        let key: Option<String> = match self.row.get_opt(self.key) {
            Some(Ok(key)) => Some(key),
            _ => None,
        };
        let object = format!("table {} row {}", self.table, key.as_deref().unwrap_or("?"));
        StoreError::Corrupt { object, problem: format!("an unusable {column}: {problem}") }
    }
}

/// A column of times as milliseconds since 1970.
macro_rules! millis {
    ($column:literal) => {
        concat!("CAST(UNIX_TIMESTAMP(", $column, ") * 1000 AS SIGNED)")
    };
}

pub(crate) use millis;
