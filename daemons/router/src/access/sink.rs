//! Where the access log goes.

use dinp_common::journal::{Entry, SOCKET, Socket};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the log in the journal: `journalctl -t dinp-router-access`.
const IDENTIFIER: &str = "dinp-router-access";
/// What tells these lines from an app's own output, which has the same fields.
const STREAM: &str = "access";

/// Where the access log goes, as it stands in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Into the journal, under a name of its own, and among the entries of the app that was asked.
    Journal,
    /// To the end of a file.
    File(PathBuf),
}

impl From<String> for AccessLog {
    fn from(text: String) -> Self {
        match text.as_str() {
            "off" => Self::Off,
            "journal" => Self::Journal,
            _ => Self::File(text.into()),
        }
    }
}

impl From<AccessLog> for String {
    fn from(log: AccessLog) -> Self {
        match log {
            AccessLog::Off => "off".to_owned(),
            AccessLog::Journal => "journal".to_owned(),
            AccessLog::File(path) => path.display().to_string(),
        }
    }
}

/// The open end.
pub(super) enum Sink {
    Journal(Socket),
    File { path: PathBuf, file: File },
}

impl Sink {
    pub(super) fn open(to: &AccessLog) -> io::Result<Option<Self>> {
        Ok(Some(match to {
            AccessLog::Off => return Ok(None),
            AccessLog::Journal => Self::Journal(Socket::waiting(Path::new(SOCKET))?),
            AccessLog::File(path) => Self::File { path: path.clone(), file: append(path)? },
        }))
    }

    /// Writes all of it. A file that was moved away meanwhile (logrotate does that) is made anew.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Journal(socket) => {
                let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                lines.try_for_each(|line| socket.send(&entry(line)))
            }
            Self::File { path, file } => {
                let is_there = std::fs::metadata(&*path).is_ok_and(|there| {
                    file.metadata().is_ok_and(|open| (open.dev(), open.ino()) == (there.dev(), there.ino()))
                });
                if !is_there {
                    *file = append(path)?;
                }
                file.write_all(bytes)
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// What a line says of whom it is about.
#[derive(Default, Deserialize)]
struct About {
    app: Option<String>,
    release: Option<u64>,
    instance: Option<String>,
}

/// A line as an entry of the app that answered, with the fields that agents give to what its instances write.
fn entry(line: &[u8]) -> Entry {
    let line = String::from_utf8_lossy(line);
    let About { app, release, instance } = serde_json::from_str(&line).unwrap_or_default();
    let entry = Entry::new("6", IDENTIFIER).field("MESSAGE", &line).field("DINP_STREAM", STREAM);
    let release = release.map(|release| release.to_string());
    let fields = [("DINP_APP", app), ("DINP_RELEASE", release), ("DINP_INSTANCE", instance)];
    let known = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.fold(entry, |entry, (name, value)| entry.field(name, &value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = TestDir::new("access");
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let mut sink = Sink::open(&AccessLog::File(path.clone())).unwrap().unwrap();
        sink.write(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        sink.write(b"two\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        sink.write(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn in_the_journal_each_line_is_an_entry_of_its_app() {
        let dir = TestDir::new("access");
        let path = dir.path().join("journal");
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut sink = Sink::Journal(Socket::waiting(&path).unwrap());
        let lines = [
            r#"{"status":200,"app":"web","release":7,"instance":"deadbeef00000001"}"#,
            r#"{"status":404,"error":"unknown_host"}"#,
        ];
        sink.write(format!("{}\n{}\n", lines[0], lines[1]).as_bytes()).unwrap();
        let read = || {
            let mut bytes = vec![0; 4096];
            let length = journal.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        // A value follows its name and its length.
        let holds = |entry: &str, name: &str, value: &str| {
            let field = format!("{name}\n{}\0\0\0\0\0\0\0{value}\n", char::from(value.len() as u8));
            assert!(entry.contains(&field), "{name}={value}: {entry:?}");
        };
        let entry = read();
        for (name, value) in [
            ("MESSAGE", lines[0]),
            ("SYSLOG_IDENTIFIER", IDENTIFIER),
            ("DINP_APP", "web"),
            ("DINP_RELEASE", "7"),
            ("DINP_INSTANCE", "deadbeef00000001"),
            ("DINP_STREAM", "access"),
        ] {
            holds(&entry, name, value);
        }
        let entry = read();
        holds(&entry, "MESSAGE", lines[1]);
        assert!(!entry.contains("DINP_APP"), "{entry:?}");
    }

    #[test]
    fn as_it_stands_in_the_configuration() {
        for (text, log) in [
            ("off", AccessLog::Off),
            ("journal", AccessLog::Journal),
            ("/var/log/x", AccessLog::File("/var/log/x".into())),
        ] {
            assert_eq!(AccessLog::from(text.to_owned()), log);
            assert_eq!(String::from(log), text);
        }
    }
}
