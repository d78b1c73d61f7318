//! What the commands print: tables for people, documents for programs.
//!
//! Results go to standard output; progress, notes and errors go to standard error.

use std::io::{IsTerminal, Write, stderr, stdin, stdout};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use dinp_common::api::{UnixMillis, unix_millis};
use indicatif::ProgressDrawTarget;
use serde::Serialize;

use crate::args::Global;
use crate::error::CliError;

/// In what form results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences, for people.
    Table,
    /// The documents of the API, for programs.
    Json,
}

/// Where and how to print.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    quiet: bool,
    color: bool,
}

impl Output {
    /// As the command line, the terminal and `NO_COLOR` say.
    pub fn new(global: &Global) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { format: global.output, quiet: global.quiet, color: !no_color && !dumb }
    }

    /// Without progress and notes.
    #[cfg(test)]
    pub fn quiet() -> Self {
        Self { format: Format::Table, quiet: true, color: false }
    }

    /// Whether programs read us.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether progress and notes are not wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether progress is shown while it happens.
    pub fn is_live(&self) -> bool {
        !self.quiet && stderr().is_terminal()
    }

    /// Where indicatif draws.
    pub fn draw_target(&self) -> ProgressDrawTarget {
        if self.is_live() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
    }

    /// A line of the result.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), CliError> {
        self.raw(format!("{}\n", text.as_ref()).as_bytes())
    }

    /// Bytes of the result.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Stdout)
    }

    /// A document.
    pub fn json<T: Serialize + ?Sized>(&self, document: &T) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| CliError::Other(format!("cannot print the document: {error}")))?;
        self.line(text)
    }

    /// A document for programs, or what `people` makes of it.
    pub fn show<T: Serialize + ?Sized>(
        &self,
        document: &T,
        people: impl FnOnce() -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        if self.is_json() { self.json(document) } else { people() }
    }

    /// A document for programs, or a sentence for people that `--quiet` takes away.
    pub fn done<T: Serialize + ?Sized>(&self, document: &T, sentence: &str) -> Result<(), CliError> {
        self.show(document, || if self.quiet { Ok(()) } else { self.line(sentence) })
    }

    /// A table without borders; `empty` is said instead of a table without rows.
    pub fn table(&self, headers: &[&str], rows: Vec<Vec<String>>, empty: &str) -> Result<(), CliError> {
        if rows.is_empty() {
            self.note(empty);
            return Ok(());
        }
        let rows = std::iter::once(headers.iter().map(|header| (*header).to_owned()).collect()).chain(rows);
        self.raw(layout(rows, 3).as_bytes())
    }

    /// Names and values, one pair a line; pairs without a value are left out.
    pub fn pairs(&self, pairs: Vec<(&str, String)>) -> Result<(), CliError> {
        let rows = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        let rows = rows.flat_map(|(name, value)| {
            let mut lines = value.lines().map(str::to_owned).collect::<Vec<_>>().into_iter();
            let first = vec![name.to_owned(), lines.next().unwrap_or_default()];
            std::iter::once(first).chain(lines.map(|line| vec![String::new(), line])).collect::<Vec<_>>()
        });
        self.raw(layout(rows, 2).as_bytes())
    }

    /// What happens, on standard error, unless `--quiet`.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.say(text.as_ref());
        }
    }

    /// An error with what to do next: for programs a document in one line, which is the last of standard error.
    pub fn error(&self, error: &CliError) {
        if self.is_json() {
            return self.say(&error.document().to_string());
        }
        let label = self.paint_err("error:", "1;31");
        self.say(&format!("{label} {}", error.told()));
        if !error.output().is_empty() {
            self.say(" the last that the instance wrote:");
            error.output().iter().for_each(|line| self.say(&format!("   {line}")));
        }
        if let Some(hint) = error.hint() {
            self.say(&format!(" {} {hint}", self.paint_err("next:", "1")));
        }
    }

    /// Colours a text for standard output, where that is a terminal.
    pub fn paint(&self, text: &str, code: &str) -> String {
        if self.color && stdout().is_terminal() { painted(text, code) } else { text.to_owned() }
    }

    fn paint_err(&self, text: &str, code: &str) -> String {
        if self.color && stderr().is_terminal() { painted(text, code) } else { text.to_owned() }
    }

    fn say(&self, text: &str) {
        // There is nobody left to tell when standard error is gone.
        writeln!(stderr(), "{text}").ok();
    }

    /// Asks before something that cannot be taken back; without a terminal, `--yes` is needed.
    pub fn confirm(&self, yes: bool, question: &str) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        if !stdin().is_terminal() || !stderr().is_terminal() {
            return Err(CliError::usage(
                format!("{question} This cannot be taken back."),
                "say --yes to do it without a question",
            ));
        }
        write!(stderr(), "{question} [y/N] ")
            .and_then(|()| stderr().flush())
            .map_err(|error| CliError::io("ask", error))?;
        let mut answer = String::new();
        stdin().read_line(&mut answer).map_err(|error| CliError::io("read the answer", error))?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CliError::Other("not confirmed, nothing done".into())),
        }
    }
}

fn painted(text: &str, code: &str) -> String {
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

fn layout(rows: impl Iterator<Item = Vec<String>>, gap: u16) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, gap));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// How long ago, in the largest unit that fits: `5s`, `3m`, `2h`, `9d`.
pub fn age(at: UnixMillis) -> String {
    let secs = (unix_millis() - at).max(0) / 1000;
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m", secs / 60),
        3600..172_800 => format!("{}h", secs / 3600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// A time in UTC to the second.
pub fn time(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_else(|_| at.to_string())
}

/// A size in bytes, for people.
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// `-` for what is empty, so that columns can be told apart.
pub fn dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_take_the_largest_unit() {
        let now = unix_millis();
        for (ago, text) in [(0, "0s"), (59_000, "59s"), (60_000, "1m"), (7_200_000, "2h"), (864_000_000, "10d")] {
            assert_eq!(age(now - ago), text);
        }
        assert_eq!(age(now + 60_000), "0s");
    }

    #[test]
    fn columns_are_aligned_and_lines_end_where_their_text_does() {
        let rows = [["NAME", "URL"], ["a", "http://a"], ["longer", "-"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(layout(rows.into_iter(), 3), "NAME     URL\na        http://a\nlonger   -\n");
    }

    #[test]
    fn times_are_in_utc() {
        assert_eq!(time(0), "1970-01-01 00:00:00 UTC");
    }
}
