//! From nothing to a cluster that serves, and back to nothing.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::try_join_all;

use super::cluster::Cluster;
use super::docker::{LABEL, docker, labelled, remove, run};
use super::error::{Error, Result};
use super::host::{Blueprint, Host};
use super::images::Images;
use super::layout::{HOSTS, Planned, Role, Subnet, routed_networks};
use super::progress::Progress;
use super::samples;
use super::setup::{self, BASE_IMAGES, REPOSITORY};
use super::state::{State, at};

pub use super::setup::Ports;

/// Ports inside of hosts that this machine shows: applications, dashboard, sign-on.
const ROUTER: u16 = 80;
pub(super) const DASH: u16 = 1985;
const UIC: u16 = 1984;

/// What a cluster is made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// The apt repository of the project's packages (`scripts/make-repo`).
    pub repository: PathBuf,
    /// Root file systems of the runtimes (`packaging/base-images/build`).
    pub base_images: PathBuf,
    /// Packages of the sample applications.
    pub samples: PathBuf,
    /// Ports of this machine; `None`: free ones.
    pub ports: Option<Ports>,
}

/// A cluster that serves.
#[derive(Debug)]
pub struct Up {
    /// The cluster.
    pub cluster: Cluster,
    /// Password of the first administrator.
    pub password: String,
}

/// Brings a cluster up, or what is missing of it.
pub async fn up(options: &Options, progress: &Progress) -> Result<Up> {
    samples::check(&options.samples)?;
    let images = Images::ensure(progress).await?;
    let state = State::of(&options.name);
    let key = refresh_repository(options, &state)?;
    let cluster = hosts(options, &images, &state, progress).await?;
    let password = install_and_set_up(&cluster, options, &state, &key, progress).await?;
    // Scenarios make their packages from those of the samples.
    copy_files(&options.samples, &state.path("samples"))?;
    samples::deploy(&cluster, &options.samples, progress).await?;
    progress.step("waiting for the samples", samples::answer(&cluster)).await?;
    Ok(Up { cluster, password })
}

/// Removes hosts, volumes, network and state of a cluster; images stay.
pub async fn down(name: &str) -> Result<()> {
    remove_hosts(&format!("{LABEL}={name}")).await?;
    State::of(name).remove()
}

/// Removes everything of every cluster, the cached images too.
pub async fn purge() -> Result<()> {
    remove_hosts(LABEL).await?;
    remove(&["image", "rm", "--force"], &labelled(&["image", "ls", "--all"], LABEL).await?).await?;
    let root = State::root();
    for entry in std::fs::read_dir(&root).into_iter().flatten() {
        let path = entry.map_err(at("read", &root))?.path();
        // What is left is the log of an engine that may be running.
        if path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(at("remove", &path))?;
        }
    }
    Ok(())
}

/// The hosts, booted: those that are there if they are of the right images, else new ones.
async fn hosts(options: &Options, images: &Images, state: &State, progress: &Progress) -> Result<Cluster> {
    if let Some(cluster) = Cluster::find(&options.name).await? {
        if of_these_images(&cluster, images).await? {
            let restore = try_join_all(cluster.hosts().iter().map(async |host| {
                host.restore().await?;
                host.booted().await
            }));
            progress.step("the hosts that are there", restore).await?;
            return Ok(cluster);
        }
        progress.say("the hosts are of other images: they are made anew");
        down(&options.name).await?;
        refresh_repository(options, state)?;
    }
    progress.step("booting control, control2, node1, node2, router1, router2", create(options, images, state)).await?;
    let found = Cluster::find(&options.name).await?;
    found.ok_or_else(|| Error::other("the hosts that were made are not there"))
}

async fn of_these_images(cluster: &Cluster, images: &Images) -> Result<bool> {
    if cluster.hosts().len() != HOSTS.len() {
        return Ok(false);
    }
    for planned in HOSTS {
        let container = &cluster.host(planned.name).container;
        let image = docker(&["inspect", "--format", "{{.Config.Image}}", container]).await?;
        if image.trim() != images.of(planned.role) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn create(options: &Options, images: &Images, state: &State) -> Result<()> {
    // Half of a cluster that was interrupted while it was made is of no use.
    remove_hosts(&format!("{LABEL}={}", options.name)).await?;
    let ports = match options.ports {
        Some(ports) => unused(ports)?,
        None => free_ports()?,
    };
    std::fs::create_dir_all(&options.base_images).map_err(at("make", &options.base_images))?;
    let subnet = network(&options.name).await?;
    let peers = HOSTS.map(|planned| (planned.name, subnet.address(planned.last_byte)));
    let repository = state.path("apt").to_string_lossy().into_owned();
    let base_images = options.base_images.to_string_lossy().into_owned();
    let mounts = [(repository.as_str(), REPOSITORY), (base_images.as_str(), BASE_IMAGES)];
    try_join_all(HOSTS.map(async |planned: Planned| {
        let blueprint = Blueprint {
            cluster: &options.name,
            planned,
            image: images.of(planned.role),
            subnet,
            peers: &peers,
            published: published(planned, ports),
            mounts: if planned.role == Role::Control { &mounts } else { &mounts[..1] },
            codename: &images.codename,
        };
        Host::create(&blueprint).await?.booted().await
    }))
    .await
    .map(drop)
}

async fn remove_hosts(label: &str) -> Result<()> {
    remove(&["rm", "--force", "--volumes"], &labelled(&["ps", "--all"], label).await?).await?;
    remove(&["volume", "rm"], &labelled(&["volume", "ls"], label).await?).await?;
    remove(&["network", "rm"], &labelled(&["network", "ls"], label).await?).await
}

/// A network of its own, in a range that nothing of this machine uses.
async fn network(cluster: &str) -> Result<Subnet> {
    let mut taken = routed_networks(&run("ip", &["-4", "route"]).await?);
    let ids = docker(&["network", "ls", "--quiet"]).await?;
    let mut inspect = vec!["network", "inspect", "--format", "{{range .IPAM.Config}}{{println .Subnet}}{{end}}"];
    inspect.extend(ids.lines());
    taken.extend(routed_networks(&docker(&inspect).await?));
    let subnet =
        Subnet::free(&taken).ok_or_else(|| Error::other("no free network in 10.213.0.0/16 for the testbed"))?;
    let label = format!("{LABEL}={cluster}");
    let name = format!("dinp-{cluster}");
    docker(&["network", "create", "--label", &label, "--subnet", &subnet.cidr(), &name]).await?;
    Ok(subnet)
}

/// One port of this machine leads to one host: to the first router, where there are several.
fn published(planned: Planned, ports: Ports) -> Vec<String> {
    let publish = |outside: u16, inside: u16| format!("127.0.0.1:{outside}:{inside}");
    match planned.name {
        "control" => vec![publish(ports.dash, DASH), publish(ports.uic, UIC)],
        "router1" => vec![publish(ports.router, ROUTER)],
        _ => Vec::new(),
    }
}

/// The same ports, unless something listens on one of them.
fn unused(ports: Ports) -> Result<Ports> {
    for port in [ports.router, ports.dash, ports.uic] {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
            Error::other(format!(
                "port {port} of 127.0.0.1 cannot be had ({error}): end what listens there, or choose others with \
                 DINP_QUICKSTART_PORTS=ROUTER,DASH,UIC"
            ))
        })?;
    }
    Ok(ports)
}

/// Ports below those that the kernel gives to whoever asks for any: one of those could be taken while its host restarts.
fn free_ports() -> Result<Ports> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    // Each process begins elsewhere, so that few meet.
    let first = (std::process::id() % 12_000) as u16;
    let mut ports = (0..12_000).map(|step| 20_000 + (first + step) % 12_000).filter(free);
    match (ports.next(), ports.next(), ports.next()) {
        (Some(router), Some(dash), Some(uic)) => Ok(Ports { router, dash, uic }),
        _ => Err(Error::other("no three ports of 127.0.0.1 from 20000 to 31999 are free".to_owned())),
    }
}

/// Puts the packages where hosts see them. The directory itself stays: hosts have it mounted.
fn refresh_repository(options: &Options, state: &State) -> Result<String> {
    let key = setup::repository_key(&options.repository)?;
    let shown = state.path("apt");
    if setup::repository_key(&shown).is_ok_and(|present| present == key) {
        return Ok(key);
    }
    state.create()?;
    copy_files(&options.repository, &shown)?;
    Ok(key)
}

/// Makes a directory hold the files of another one and no others; the directory itself stays.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(at("make", to))?;
    for old in files(to)? {
        std::fs::remove_file(&old).map_err(at("remove", &old))?;
    }
    for file in files(from)? {
        if let Some(name) = file.file_name() {
            std::fs::copy(&file, to.join(name)).map_err(at("copy", &file))?;
        }
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at("read", dir))? {
        let path = entry.map_err(at("read", dir))?.path();
        if path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Packages and `dinp setup` on all hosts; returns the first login's password.
async fn install_and_set_up(
    cluster: &Cluster,
    options: &Options,
    state: &State,
    key: &str,
    progress: &Progress,
) -> Result<String> {
    let ports =
        Ports { router: cluster.published(ROUTER)?, dash: cluster.published(DASH)?, uic: cluster.published(UIC)? };
    let password = state.admin_password()?;
    let control = cluster.host("control");
    let install =
        try_join_all(HOSTS.map(|planned| setup::install(cluster.host(planned.name), planned.role.packages(), key)));
    progress.step("apt install of the packages on every host", install).await?;
    progress.step("dinp setup control", setup::control(control, ports, &password, key)).await?;
    // First the second server: the bundles of the others name both.
    progress.step("dinp setup server, dinp setup servers", second_server(cluster)).await?;
    let members = HOSTS.iter().filter(|planned| matches!(planned.role, Role::Node | Role::Router));
    let members = try_join_all(members.map(|planned| setup::member(cluster.host(planned.name), planned.role, control)));
    progress.step("dinp setup node, dinp setup router", members).await?;
    progress.step("base images into the registry", setup::base_images(control, &options.base_images)).await?;
    let cli = cluster.cli();
    cli.fetch(control).await?;
    progress.step("signing in", sign_in(cluster, ports)).await?;
    progress.step("waiting for the nodes", cli.nodes_ready(&["node1", "node2"], Duration::from_secs(60))).await?;
    Ok(password)
}

async fn second_server(cluster: &Cluster) -> Result<()> {
    let servers = cluster.servers();
    let [control, second] = servers;
    setup::member(second, Role::Server, control).await?;
    setup::servers(control, &servers).await
}

/// The dashboard may need a moment after its host has booted.
async fn sign_in(cluster: &Cluster, ports: Ports) -> Result<()> {
    let cli = cluster.cli();
    super::eventually("the first login works", Duration::from_secs(60), async || {
        cli.login(ports.dash).await.map_err(|error| error.chain())
    })
    .await
}
