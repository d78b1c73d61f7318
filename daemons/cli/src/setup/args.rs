//! The grammar of `dinp setup`.

use clap::{Args, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;
use url::Url;

/// What a machine is to become.
#[derive(Debug, Subcommand)]
pub enum SetupCommand {
    /// The control machine: MySQL, Redis, registry, server, dashboard, sign-on, builder, health monitor
    Control(ControlArgs),
    /// All on one machine: control, node and router
    Single(ControlArgs),
    /// On the control machine: print the bundle that makes a machine a node (again: with a new secret)
    NodeBundle(BundleArgs),
    /// A compute node, from its bundle
    Node(MemberArgs),
    /// On the control machine: print the bundle that makes a machine a router (again: with a new secret)
    RouterBundle(BundleArgs),
    /// A router, from its bundle
    Router(MemberArgs),
    /// On the control machine: print the bundle that makes a machine a further server (again: with a new secret)
    ServerBundle(BundleArgs),
    /// A further server, which leads when the leader fails, from its bundle
    Server(MemberArgs),
    /// On every machine: tell its daemons which servers the cluster has
    Servers(ServersArgs),
    /// Put the base images of the builder's runtimes into the registry
    BaseImages(ImagesArgs),
}

/// Options of the control machine.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// Name of this machine [default: its host name]
    #[arg(long)]
    pub name: Option<String>,
    /// Address at which the other machines reach this one [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Name of the cluster
    #[arg(long, default_value = "dinp")]
    pub cluster: String,
    /// Apps are served at <app>.<domain>
    #[arg(long, default_value = "apps.localhost")]
    pub domain: String,
    /// Where browsers reach the dashboard [default: this machine's address, port 1985]
    #[arg(long, value_name = "URL")]
    pub dash_url: Option<Url>,
    /// Where browsers reach the sign-on [default: this machine's address, port 1984]
    #[arg(long, value_name = "URL")]
    pub uic_url: Option<Url>,
    /// Where browsers reach the router, with its port where that is not 80
    #[arg(long, value_name = "URL")]
    pub router_url: Option<Url>,
    /// Name of the first administrator
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub admin: String,
    /// File with the first administrator's password [default: one is made, and printed once]
    #[arg(long, value_name = "FILE")]
    pub admin_password_file: Option<PathBuf>,
    /// Show what would be changed, and change nothing; exit code 2 if there is something
    #[arg(long)]
    pub check: bool,
}

/// Options of a bundle.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Name of the node, router or server: a DNS label
    pub name: String,
    /// Address at which the routers reach the node, the server the router, or all others the server
    #[arg(long, value_name = "IP")]
    pub address: IpAddr,
}

/// Options of a machine that has a bundle.
#[derive(Debug, Args)]
pub struct MemberArgs {
    /// File with the bundle, - for standard input
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,
    /// Show what would be changed, and change nothing; exit code 2 if there is something
    #[arg(long)]
    pub check: bool,
}

/// Options of the list of servers.
#[derive(Debug, Args)]
pub struct ServersArgs {
    /// URLs of all servers of the cluster, in the order in which they are to be tried
    #[arg(required = true, value_name = "URL")]
    pub servers: Vec<Url>,
    /// Show what would be changed, and change nothing; exit code 2 if there is something
    #[arg(long)]
    pub check: bool,
}

/// Options of base images.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Directory with images that were made elsewhere, by /usr/share/dinp/base-images/build, for a machine that
    /// reaches no mirror of its distribution; by default they are made here
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Only this image, such as base-python; may be repeated
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Show what would be changed, and change nothing; exit code 2 if there is something
    #[arg(long)]
    pub check: bool,
}
