//! Entries of the systemd journal, and events as such.
//!
//! Fields become fields of the entry (`app` is `DINP_APP`, so that `journalctl DINP_APP=web` works), and those that the
//! message does not speak of are appended to it, because the short view of `journalctl` shows nothing else:
//! `stopping an instance: the app was deleted app=web node=node1`.
//!
//! The format is the journal's native protocol (systemd, `JOURNAL_NATIVE_PROTOCOL.md`).

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Longest value that is sent, in bytes: an entry must fit into one datagram.
const VALUE_MAX: usize = 16 * 1024;

/// The way to the journal.
#[derive(Debug)]
pub struct Socket {
    /// Not connected: it has to reach a socket of journald's that was made anew.
    socket: UnixDatagram,
    path: PathBuf,
}

impl Socket {
    /// For the journal at this socket. Sending never waits.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The same, but sending waits until the journal takes the entry: for a thread that has nothing else to do. An error if
    /// nobody listens there.
    pub fn waiting(path: &Path) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }

    /// Sends an entry; an error if the journal does not take it now.
    pub fn send(&self, entry: &Entry) -> io::Result<()> {
        self.socket.send_to(&entry.0, &self.path).map(drop)
    }
}

/// One entry: fields in the format that the journal reads.
#[derive(Debug)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// An entry with the priority of syslog (`3` error, `4` warning, `6` information, `7` debug) and an identifier.
    pub fn new(priority: &str, identifier: &str) -> Self {
        Self(Vec::with_capacity(512)).field("PRIORITY", priority).field("SYSLOG_IDENTIFIER", identifier)
    }

    /// With one more field, whose value is cut to what an entry can hold. A name is of capitals, digits and underscores.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        put(&mut self.0, name, value);
        self
    }
}

/// A subscriber layer that writes to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: Socket,
    identifier: String,
}

impl Journal {
    /// For the journal at this socket; an error if nobody listens there. `identifier` is the entries'
    /// `SYSLOG_IDENTIFIER`.
    pub fn at(path: &Path, identifier: String) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        let socket = Socket { socket: UnixDatagram::unbound()?, path: path.to_owned() };
        Ok(Self { socket, identifier })
    }

    fn entry(&self, event: &Event<'_>) -> Entry {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let mut entry = Entry::new(priority(*meta.level()), &self.identifier).field("TARGET", meta.target());
        if let (Some(file), Some(line)) = (meta.file(), meta.line()) {
            entry = entry.field("CODE_FILE", file).field("CODE_LINE", &line.to_string());
        }
        for (name, value) in &fields.named {
            entry = entry.field(&journal_name(name), value);
        }
        entry.field("MESSAGE", &fields.spoken())
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // There is nobody left to tell when the journal cannot be told.
        self.socket.send(&self.entry(event)).ok();
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// Capitals, digits and underscores are all that the journal takes in a name.
fn journal_name(name: &str) -> String {
    let plain = name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' });
    format!("DINP_{}", plain.map(char::from).collect::<String>())
}

/// A value with its length, so that it may hold any bytes.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(VALUE_MAX)];
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[derive(Default)]
struct Fields {
    message: String,
    named: Vec<(&'static str, String)>,
}

impl Fields {
    /// The message, and what it does not say itself.
    fn spoken(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.named {
            if value.is_empty() || says(&self.message, value) {
                continue;
            }
            let plain = value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
            let appended = if plain { write!(text, " {name}={value}") } else { write!(text, " {name}={value:?}") };
            appended.ok();
        }
        text
    }

    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            // Where an event of the crate `log` comes from, which is no matter of ours.
            name if name.starts_with("log.") => {}
            name => self.named.push((name, value)),
        }
    }
}

/// Whether a message holds a value as words of its own.
fn says(message: &str, value: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    message.match_indices(value).any(|(at, _)| {
        let (before, after) = (message[..at].chars().next_back(), message[at + value.len()..].chars().next());
        !before.is_some_and(in_word) && !after.is_some_and(in_word)
    })
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDir;
    use std::collections::BTreeMap;
    use tracing_subscriber::layer::SubscriberExt;

    /// What journald would read.
    fn parse(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(entry[..end].to_vec()).unwrap();
            let (length, rest) = entry[end + 1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            fields.insert(name, String::from_utf8(rest[..length].to_vec()).unwrap());
            assert_eq!(rest[length], b'\n');
            entry = &rest[length + 1..];
        }
        fields
    }

    fn logged(log: impl FnOnce()) -> BTreeMap<String, String> {
        let dir = TestDir::new("journal");
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let layer = Journal::at(&path, "dinp-test".into()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let mut buffer = vec![0; 200_000];
        let length = journald.recv(&mut buffer).unwrap();
        parse(&buffer[..length])
    }

    #[test]
    fn the_short_view_shows_the_fields_and_they_can_be_searched_for() {
        let entry = logged(|| tracing::warn!(app = "web", count = 3, why = %"no room", "instances are missing"));
        assert_eq!(entry["MESSAGE"], r#"instances are missing app=web count=3 why="no room""#);
        assert_eq!(entry["DINP_APP"], "web");
        assert_eq!(entry["DINP_WHY"], "no room");
        assert_eq!(entry["PRIORITY"], "4");
        assert_eq!(entry["SYSLOG_IDENTIFIER"], "dinp-test");
    }

    #[test]
    fn what_the_message_says_is_not_said_twice() {
        let error = "connection refused";
        let entry = logged(|| tracing::error!(%error, "Redis is not there: {error}"));
        assert_eq!(entry["MESSAGE"], "Redis is not there: connection refused");
        assert_eq!(entry["DINP_ERROR"], "connection refused");
        let entry = logged(|| tracing::info!(app = "art", "start"));
        assert_eq!(entry["MESSAGE"], "start app=art");
    }

    #[test]
    fn an_entry_of_anybody_has_its_fields_and_a_full_journal_is_not_waited_for() {
        let dir = TestDir::new("journal");
        let path = dir.path().join("socket");
        let socket = Socket::at(&path).unwrap();
        let entry = Entry::new("6", "web").field("DINP_APP", "web").field("MESSAGE", "two\nlines");
        assert!(socket.send(&entry).is_err(), "nobody listens");
        let journald = UnixDatagram::bind(&path).unwrap();
        socket.send(&entry).unwrap();
        let mut buffer = [0; 4096];
        let length = journald.recv(&mut buffer).unwrap();
        let fields = parse(&buffer[..length]);
        assert_eq!((&*fields["DINP_APP"], &*fields["MESSAGE"]), ("web", "two\nlines"));
        assert_eq!((&*fields["PRIORITY"], &*fields["SYSLOG_IDENTIFIER"]), ("6", "web"));
        assert!((0..100_000).any(|_| socket.send(&entry).is_err()), "it does not wait");
    }

    #[test]
    fn a_journald_with_a_new_socket_is_found() {
        let dir = TestDir::new("journal");
        let path = dir.path().join("socket");
        let first = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path, "dinp-test".into()).unwrap();
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || tracing::info!("here"));
        second.set_nonblocking(true).unwrap();
        assert!(second.recv(&mut [0; 4096]).unwrap() > 0);
    }

    #[test]
    fn a_line_break_makes_no_second_field_and_an_endless_value_is_cut() {
        let forged = "a\nMESSAGE=forged";
        let entry = logged(|| tracing::info!(path = forged, long = %"ä".repeat(100_000), "asked"));
        assert_eq!(entry["DINP_PATH"], forged);
        assert!(entry["MESSAGE"].starts_with(r#"asked path="a\nMESSAGE=forged" long="#));
        assert_eq!(entry["DINP_LONG"].len(), VALUE_MAX);
    }
}
