//! `dinp-testbed`: clusters of hosts on this machine, for newcomers and for tests.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dinp_integration::testbed::bringup::{self, Options, Ports, Up};
use dinp_integration::testbed::cli::Cli;
use dinp_integration::testbed::images::Images;
use dinp_integration::testbed::layout::ADMIN;
use dinp_integration::testbed::{Cluster, Error, Host, Progress, Result};

mod summary;

#[derive(Parser)]
#[command(name = "dinp-testbed", version, about = "Clusters of DINP hosts on this machine")]
struct Arguments {
    /// Name of the cluster.
    #[arg(long, global = true, default_value = "quickstart")]
    name: String,
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Make the images of hosts that are missing.
    Images,
    /// Bring the cluster up, or what is missing of it.
    Up(Parts),
    /// Remove hosts, volumes and network; cached images stay.
    Down {
        /// Remove the cached images too, and every other cluster of the testbed.
        #[arg(long)]
        purge: bool,
    },
    /// Open a shell on a host, or run a command there.
    Shell {
        /// control, control2, node1, node2, router1 or router2.
        host: String,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Show hosts, addresses, units of DINP and containers of apps.
    Status,
    /// Show the journals of DINP's units, of one host or of all.
    Logs {
        /// control, control2, node1, node2, router1 or router2.
        host: Option<String>,
        /// How many lines of each host.
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: u32,
    },
    /// Run the `dinp` command line, logged in as the first administrator.
    Dinp {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// What a cluster is made from.
#[derive(Args)]
struct Parts {
    /// The apt repository with the project's packages.
    #[arg(long)]
    repository: PathBuf,
    /// Directory with the base images.
    #[arg(long)]
    base_images: PathBuf,
    /// Directory with the packages of the samples.
    #[arg(long)]
    samples: PathBuf,
    /// Ports of 127.0.0.1 for applications, dashboard and sign-on; without it, free ones.
    #[arg(long, value_name = "ROUTER,DASH,UIC", value_parser = three_ports)]
    ports: Option<Ports>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dinp-testbed: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let progress = Progress::new();
    let name = &arguments.name;
    match arguments.act {
        Act::Images => Images::ensure(&progress).await.map(drop)?,
        Act::Up(parts) => {
            let up = bringup::up(&parts.options(name), &progress).await?;
            summary::print(&up, &progress)?;
        }
        Act::Down { purge: false } => progress.step("removing the cluster", bringup::down(name)).await?,
        Act::Down { purge: true } => progress.step("removing all of the testbed", bringup::purge()).await?,
        Act::Shell { host, command } => return shell(name, &host, &command).await,
        Act::Status => show(&summary::status(&existing(name).await?).await?),
        Act::Logs { host, lines } => logs(name, host.as_deref(), lines).await?,
        Act::Dinp { arguments } => return Ok(dinp(name, &arguments)),
    }
    Ok(ExitCode::SUCCESS)
}

impl Parts {
    fn options(self, name: &str) -> Options {
        Options {
            name: name.to_owned(),
            repository: self.repository,
            base_images: self.base_images,
            samples: self.samples,
            ports: self.ports,
        }
    }
}

fn three_ports(text: &str) -> Result<Ports, String> {
    let ports: Result<Vec<u16>, _> = text.split(',').map(str::parse).collect();
    match ports.as_deref() {
        Ok(&[router, dash, uic]) => Ok(Ports { router, dash, uic }),
        _ => Err("three ports are needed, such as 8080,1985,1984".to_owned()),
    }
}

/// Prints a text; a reader that has seen enough (`| head`) is no error.
fn show(text: &str) {
    use std::io::Write as _;
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        std::process::exit(0);
    }
}

async fn existing(name: &str) -> Result<Cluster> {
    Cluster::find(name).await?.ok_or_else(|| Error::other(format!("no cluster {name} on this machine")))
}

fn known<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a Host> {
    cluster.hosts().iter().find(|host| host.name == name).ok_or_else(|| {
        let names: Vec<&str> = cluster.hosts().iter().map(|host| host.name.as_str()).collect();
        Error::other(format!("no host {name}; there are {}", names.join(", ")))
    })
}

/// Becomes `docker exec`, so that terminal and signals are the shell's own.
async fn shell(name: &str, host: &str, command: &[String]) -> Result<ExitCode> {
    use std::io::IsTerminal as _;
    let cluster = existing(name).await?;
    let mut docker = std::process::Command::new("docker");
    docker.args(["exec", "--interactive"]);
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        docker.arg("--tty");
    }
    docker.arg(&known(&cluster, host)?.container);
    if command.is_empty() {
        docker.args(["bash", "-l"]);
    } else {
        // As ssh does it: words of a command, or a line for the shell.
        docker.args(["bash", "-c", &command.join(" ")]);
    }
    let source = docker.exec();
    Err(Error::Spawn { program: "docker".to_owned(), source })
}

async fn logs(name: &str, host: Option<&str>, lines: u32) -> Result<()> {
    let cluster = existing(name).await?;
    let hosts: Vec<&Host> = match host {
        Some(host) => vec![known(&cluster, host)?],
        None => cluster.hosts().iter().collect(),
    };
    for host in hosts {
        let journal = host.exec(&format!("journalctl --no-pager -u 'dinp-*' -n {lines} || true")).await?;
        show(&format!("----- {} -----\n{journal}", host.name));
    }
    Ok(())
}

/// Becomes `dinp`.
fn dinp(name: &str, arguments: &[String]) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let error = Cli::of(name).command(&arguments).into_std().exec();
    eprintln!("dinp-testbed: cannot run dinp of cluster {name} ({error}); is it up?");
    ExitCode::FAILURE
}
