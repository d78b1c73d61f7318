//! What every daemon's `main` does: arguments, configuration, logging, run, exit code.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};

use crate::config::{self, ConfigError, DaemonConfig, Loaded, LogConfig, LogSink};
use crate::credentials::CredentialError;
use crate::error::ErrorChain;
use crate::lifecycle::Lifecycle;
use crate::man::{self, Manual};
use crate::{credentials, logging, metrics};

/// Anything that went wrong but has no exit code of its own.
pub const EXIT_FAILURE: u8 = 1;
/// The command line makes no sense (sysexits: `EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// The configuration or a credential cannot be used (`EX_CONFIG`).
pub const EXIT_CONFIG: u8 = 78;

/// How long blocking work may hold up the end of the process.
const LEAVE: Duration = Duration::from_secs(2);

type Outcome = Result<(), Box<dyn Error>>;
type Handler<C> = Box<dyn FnOnce(ArgMatches, Loaded<C>) -> Pin<Box<dyn Future<Output = Outcome>>>>;

/// A daemon without subcommands of its own; `name` is the short one (`server`).
pub fn main<C, F, Fut, E>(name: &'static str, manual: Manual, run: F) -> ExitCode
where
    C: DaemonConfig,
    F: FnOnce(Loaded<C>, Lifecycle) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    Daemon::new(name, manual).main(run)
}

/// A daemon's command line: no subcommand runs it, `check-config` and `config show` look at its
/// configuration, `man` (hidden) prints its manual page, further ones are its own.
pub struct Daemon<C> {
    name: &'static str,
    manual: Manual,
    command: Command,
    handlers: BTreeMap<String, Handler<C>>,
}

impl<C: DaemonConfig> Daemon<C> {
    /// A daemon named `server` is the program `dinp-server` and reads `server.toml`.
    pub fn new(name: &'static str, manual: Manual) -> Self {
        assert!(!name.starts_with("dinp-"), "a daemon's name is the short one");
        let directory = Arg::new("config-dir")
            .long("config-dir")
            .env("DINP_CONFIG_DIR")
            .global(true)
            .value_name("DIR")
            .value_hint(ValueHint::DirPath)
            .value_parser(value_parser!(PathBuf))
            .default_value(config::DEFAULT_DIR)
            .help("Directory with dinp.toml and this daemon's file");
        let command = Command::new(&*format!("dinp-{name}").leak())
            .about(manual.about)
            .long_about(manual.description)
            .version(env!("CARGO_PKG_VERSION"))
            .arg(directory)
            .subcommand(Command::new("check-config").about("Check the configuration and exit"))
            .subcommand(
                Command::new("config")
                    .about("Look at the configuration")
                    .subcommand_required(true)
                    .subcommand(Command::new("show").about("Print what is in force, and which file says so")),
            )
            .subcommand(Command::new("man").about("Print the manual page").hide(true));
        Self { name, manual, command, handlers: BTreeMap::new() }
    }

    /// Adds a subcommand. It runs within the runtime, with warnings logged to standard error.
    #[must_use]
    pub fn subcommand<F, Fut, E>(mut self, command: Command, run: F) -> Self
    where
        F: FnOnce(ArgMatches, Loaded<C>) -> Fut + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: Error + 'static,
    {
        let name = command.get_name().to_owned();
        let handler: Handler<C> = Box::new(move |matches, loaded| {
            let outcome = run(matches, loaded);
            Box::pin(async move { outcome.await.map_err(|error| Box::new(error) as Box<dyn Error>) })
        });
        self.handlers.insert(name, handler);
        self.command = self.command.subcommand(command);
        self
    }

    /// The command line as clap knows it.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The manual page, as roff.
    pub fn page(&self) -> std::io::Result<String> {
        man::daemon(self.name, &self.command, &self.manual)
    }

    /// Does what the command line says.
    pub fn main<F, Fut, E>(self, run: F) -> ExitCode
    where
        F: FnOnce(Loaded<C>, Lifecycle) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Error + 'static,
    {
        let matches = match self.command.clone().try_get_matches() {
            Ok(matches) => matches,
            Err(error) => return usage(&error),
        };
        match self.dispatch(matches, run) {
            Ok(code) => code,
            Err(error) => {
                report(&*error);
                ExitCode::from(exit_code(&*error))
            }
        }
    }

    fn dispatch<F, Fut, E>(mut self, mut matches: ArgMatches, run: F) -> Result<ExitCode, Box<dyn Error>>
    where
        F: FnOnce(Loaded<C>, Lifecycle) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Error + 'static,
    {
        // Before anything is read: pages are made where packages are built, and no configuration is.
        if matches.subcommand_name() == Some("man") {
            return print(&self.page()?).map(|()| ExitCode::SUCCESS);
        }
        let dir: PathBuf =
            matches.get_one("config-dir").cloned().unwrap_or_else(|| Path::new(config::DEFAULT_DIR).into());
        credentials::set_fallback_directory(dir.join("credentials"));
        let loaded = config::load::<C>(&dir, self.name)?;
        let outcome = match matches.remove_subcommand() {
            None => {
                logging::init(self.name, &loaded.cluster.log);
                metrics::install(self.name);
                return live(self.name, |lifecycle| run(loaded, lifecycle));
            }
            Some((name, _)) if name == "check-config" => print(&format!("{}: configuration is valid\n", dir.display())),
            Some((name, _)) if name == "config" => print(&loaded.show()),
            Some((name, matches)) => {
                let log = LogConfig { sink: LogSink::Stderr, level: "warn".into() };
                logging::init(self.name, &log);
                match self.handlers.remove(&name) {
                    Some(handler) => block_on(handler(matches, loaded)),
                    None => Ok(()),
                }
            }
        };
        outcome.map(|()| ExitCode::SUCCESS)
    }
}

/// A daemon's whole life. A task that failed has told so by itself, and only shows in the exit code.
fn live<Fut, E>(name: &str, run: impl FnOnce(Lifecycle) -> Fut) -> Result<ExitCode, Box<dyn Error>>
where
    Fut: Future<Output = Result<(), E>>,
    E: Error + 'static,
{
    block_on(async {
        let lifecycle = Lifecycle::start()?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting dinp-{name}");
        run(lifecycle.clone()).await?;
        tracing::info!("stopped");
        Ok(if lifecycle.failure().is_some() { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS })
    })
}

/// A program to start. It does not inherit what systemd told this process alone: notification
/// socket, watchdog, sockets, credentials.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> tokio::process::Command {
    const PRIVATE: [&str; 8] = [
        "NOTIFY_SOCKET",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "CREDENTIALS_DIRECTORY",
        "JOURNAL_STREAM",
    ];
    let mut command = tokio::process::Command::new(program);
    for name in PRIVATE {
        command.env_remove(name);
    }
    command
}

fn block_on<T>(work: impl Future<Output = Result<T, Box<dyn Error>>>) -> Result<T, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(LEAVE);
    outcome
}

fn print(text: &str) -> Outcome {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        // `... config show | head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // Where not even this can be printed, the exit code says enough.
    drop(error.print());
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

/// Tells the error once: in the log if there is one, else on standard error.
fn report(error: &(dyn Error + 'static)) {
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{}", ErrorChain(error));
    } else {
        eprintln!("error: {}", ErrorChain(error));
    }
}

fn exit_code(error: &(dyn Error + 'static)) -> u8 {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<ConfigError>() || error.is::<CredentialError>() {
            return EXIT_CONFIG;
        }
        next = error.source();
    }
    EXIT_FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NoConfig;

    #[derive(Debug, thiserror::Error)]
    #[error("start")]
    struct Start(#[source] Box<dyn Error>);

    #[test]
    fn exit_codes() {
        assert_eq!(exit_code(&Start(Box::new(ConfigError::invalid("listen", "empty")))), EXIT_CONFIG);
        assert_eq!(exit_code(&Start("no luck".into())), EXIT_FAILURE);
    }

    #[test]
    fn command_lines() {
        let daemon = Daemon::<NoConfig>::new("uic", man::tests::MANUAL)
            .subcommand(Command::new("create-admin"), |_, _| async { Ok::<(), std::io::Error>(()) });
        daemon.command.clone().debug_assert();
        let parse = |line: &str| daemon.command().clone().try_get_matches_from(line.split(' '));
        assert!(parse("dinp-uic").is_ok());
        assert!(parse("dinp-uic config show --config-dir /tmp").is_ok());
        assert!(parse("dinp-uic create-admin").is_ok());
        assert!(parse("dinp-uic man").is_ok());
        assert!(parse("dinp-uic config").is_err());
        assert!(parse("dinp-uic nonsense").is_err());
    }

    /// A process of its own, because it is its end that counts: this same test, started again.
    fn end_of(test: &str, doomed: &str) -> std::process::Output {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("daemon::tests::{test}"), "--nocapture"])
            .env("DINP_TEST_LIFE", "1")
            .env(crate::lifecycle::FAIL_VARIABLE, doomed)
            .output()
            .unwrap()
    }

    fn live_here<Fut: Future<Output = Result<(), std::io::Error>>>(run: impl FnOnce(Lifecycle) -> Fut) {
        logging::init("test", &LogConfig { sink: LogSink::Stderr, level: "info".into() });
        let code = live("test", run).unwrap();
        std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
    }

    #[test]
    fn a_daemon_whose_task_panics_ends_with_a_message_and_code_1() {
        if std::env::var_os("DINP_TEST_LIFE").is_some() {
            live_here(|lifecycle| async move {
                lifecycle.task("report", std::future::pending());
                lifecycle.shutdown().cancelled().await;
                Ok(())
            });
        }
        let end = end_of("a_daemon_whose_task_panics_ends_with_a_message_and_code_1", "report");
        assert_eq!(end.status.code(), Some(1));
        let said = String::from_utf8_lossy(&end.stderr);
        assert_eq!(said.matches("task report panicked: DINP_FAIL_TASK names it").count(), 1, "{said}");
        assert!(said.contains("stopped"), "it drains before it ends: {said}");
    }

    #[test]
    fn a_daemon_that_hangs_while_a_task_failed_ends_all_the_same() {
        if std::env::var_os("DINP_TEST_LIFE").is_some() {
            live_here(|lifecycle| async move {
                lifecycle.task("report", async {});
                std::future::pending().await
            });
        }
        let end = end_of("a_daemon_that_hangs_while_a_task_failed_ends_all_the_same", "");
        assert_eq!(end.status.code(), Some(1));
        let said = String::from_utf8_lossy(&end.stderr);
        assert!(said.contains("task report ended though nobody asked it to"), "{said}");
        assert!(said.contains("still not drained after 5 s"), "{said}");
    }

    #[test]
    fn children_inherit_nothing_of_systemd() {
        let command = command("true");
        let removed: Vec<_> = command.as_std().get_envs().filter(|(_, value)| value.is_none()).collect();
        assert!(removed.iter().any(|(name, _)| *name == "NOTIFY_SOCKET"));
        assert!(removed.iter().any(|(name, _)| *name == "LISTEN_FDS"));
    }
}
