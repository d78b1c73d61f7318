//! Where log lines go: the journal with fields, syslog, or standard error.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{LogConfig, LogSink};
use crate::journal::{self, Journal};

/// The variable that overrides the configured level.
pub const LEVEL_VARIABLE: &str = "DINP_LOG";

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging for the process; a second call changes nothing.
pub fn init(daemon: &str, config: &LogConfig) {
    let filter = std::env::var(LEVEL_VARIABLE)
        .ok()
        .and_then(|level| EnvFilter::try_new(level).ok())
        .or_else(|| EnvFilter::try_new(&config.level).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
    let (layer, failed) = match layer(daemon, config.sink) {
        Ok(layer) => (layer, None),
        Err(error) => (stderr(), Some(error)),
    };
    if tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_err() {
        return;
    }
    if let Some(error) = failed {
        tracing::warn!(%error, "configured log sink cannot be opened, logging to stderr: {error}");
    }
}

fn layer(daemon: &str, sink: LogSink) -> io::Result<BoxedLayer> {
    let identifier = format!("dinp-{daemon}");
    match sink {
        LogSink::Auto if std::env::var_os("JOURNAL_STREAM").is_some() => journald(identifier),
        LogSink::Journald => journald(identifier),
        LogSink::Syslog => syslog(identifier),
        LogSink::Auto | LogSink::Stderr => Ok(stderr()),
    }
}

fn journald(identifier: String) -> io::Result<BoxedLayer> {
    Ok(Box::new(Journal::at(Path::new(journal::SOCKET), identifier)?))
}

fn stderr() -> BoxedLayer {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    Box::new(layer)
}

fn syslog(process: String) -> io::Result<BoxedLayer> {
    let formatter = syslog::Formatter3164 {
        facility: syslog::Facility::LOG_DAEMON,
        hostname: None,
        process,
        pid: std::process::id(),
    };
    let logger = syslog::unix(formatter).map_err(|error| io::Error::other(error.to_string()))?;
    let writer = SyslogWriter(Arc::new(Mutex::new(logger)));
    let layer = tracing_subscriber::fmt::layer().without_time().with_level(false).with_ansi(false).with_writer(writer);
    Ok(Box::new(layer))
}

type SyslogLogger = syslog::Logger<syslog::LoggerBackend, syslog::Formatter3164>;

/// Passes each event to syslog with the priority of its level.
#[derive(Clone)]
struct SyslogWriter(Arc<Mutex<SyslogLogger>>);

impl<'a> MakeWriter<'a> for SyslogWriter {
    type Writer = SyslogLine;

    fn make_writer(&'a self) -> SyslogLine {
        SyslogLine { logger: self.0.clone(), level: Level::INFO }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> SyslogLine {
        SyslogLine { logger: self.0.clone(), level: *meta.level() }
    }
}

struct SyslogLine {
    logger: Arc<Mutex<SyslogLogger>>,
    level: Level,
}

impl Write for SyslogLine {
    /// The formatter writes each event in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let mut logger = self.logger.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = match self.level {
            Level::ERROR => logger.err(text),
            Level::WARN => logger.warning(text),
            Level::INFO => logger.info(text),
            _ => logger.debug(text),
        };
        sent.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
