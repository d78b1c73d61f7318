//! Where the access log goes.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Name of the log in the journal: `journalctl -t dinp-router-access`.
const IDENTIFIER: &str = "dinp-router-access";
const JOURNAL: &str = "/run/systemd/journal/stdout";

/// Where the access log goes, as it stands in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Into the journal, under a name of its own.
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
    Journal(UnixStream),
    File { path: PathBuf, file: File },
}

impl Sink {
    pub(super) fn open(to: &AccessLog) -> io::Result<Option<Self>> {
        Ok(Some(match to {
            AccessLog::Off => return Ok(None),
            AccessLog::Journal => Self::Journal(journal()?),
            AccessLog::File(path) => Self::File { path: path.clone(), file: append(path)? },
        }))
    }

    /// Writes all of it. A file that was moved away meanwhile (logrotate does that) is made anew.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Journal(stream) => {
                let written = stream.write_all(bytes);
                // journald was restarted: once more, over a new connection.
                written.or_else(|_| {
                    *stream = journal()?;
                    stream.write_all(bytes)
                })
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

/// A stream of lines to journald, as `systemd-cat` opens one: identifier, unit, priority (6, informational), and that lines
/// have no priorities of their own and go nowhere else.
fn journal() -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(JOURNAL)?;
    write!(stream, "{IDENTIFIER}\n\n6\n0\n0\n0\n0\n")?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;

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
