//! What `builder.toml` says.

pub use crate::fetch::FetchConfig;
use crate::package::Limits;
use dinp_common::config::{ClusterConfig, ConfigError, DaemonConfig, Loaded};
use dinp_common::model::ImageRef;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the builder alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuilderConfig {
    /// Addresses to listen on, unless a socket unit owns them.
    pub listen: Vec<SocketAddr>,
    /// Name of this builder in build records; by default the host's name.
    pub name: Option<String>,
    /// Seconds without request and build after which a socket-activated builder exits; 0 stands for never.
    pub idle_exit_secs: u32,
    /// Seconds that builds may go on when the builder is told to stop.
    pub drain_secs: u32,
    /// Seconds of silence after which a build of another builder is taken over, or ended where its package is lost.
    pub give_up_secs: u32,
    /// Where packages are spooled, and what was found out of them is kept.
    pub state_dir: PathBuf,
    /// Directory of the runtimes; by default `builder.d` in the directory of this file.
    pub runtimes_dir: Option<PathBuf>,
    /// Socket of the local Docker Engine.
    pub docker_socket: PathBuf,
    /// Tag of the base images; by default the suite of this host's distribution.
    pub base_tag: Option<String>,
    /// Builds at the same time; further ones wait.
    pub concurrent_builds: u32,
    /// Most packages of one person that arrive, wait or are being built.
    pub packages_per_person: u32,
    /// Most of all people together.
    pub packages_max: u32,
    /// Most that they take up in the spool, in MiB.
    pub spool_max_mb: u32,
    /// Days that an image is kept which no release names; 0 keeps all.
    pub image_keep_days: u32,
    /// Digests of base images by `repository:tag`: builds stand on these, whatever the tag points to.
    pub bases: BTreeMap<String, String>,
    /// What packages may be.
    pub package: PackageConfig,
    /// What a build may use.
    pub build: BuildConfig,
    /// Where packages may be fetched from.
    pub fetch: FetchConfig,
}

/// `[package]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PackageConfig {
    /// Largest package, in MiB.
    pub max_mb: u32,
    /// Most that a package may unpack to, in MiB.
    pub unpacked_max_mb: u32,
    /// Most unpacked bytes for each packed byte, beyond 64 MiB.
    pub max_ratio: u32,
    /// Most entries, counting the directories that only stand in their names.
    pub max_entries: u32,
    /// Most that all their names and the targets of links may take, in MiB.
    pub max_names_mb: u32,
    /// Longest time for reading a package from its beginning to its end, in seconds.
    pub read_limit_secs: u32,
    /// Seconds without a byte after which an upload is given up.
    pub upload_stall_secs: u32,
    /// Seconds that what has come of an upload in parts is kept after its last byte.
    pub upload_keep_secs: u32,
}

/// `[build]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildConfig {
    /// Whether what needs no container is built without the Engine.
    pub direct: bool,
    /// Whether packages may be built by a Dockerfile of their own.
    pub own_dockerfiles: bool,
    /// Memory of a build's containers, in MiB, without swap.
    pub memory_mb: u32,
    /// CPU limit of a build's containers, in thousandths of a core.
    pub cpu_millis: u32,
    /// Largest image that the Engine may make, in MiB.
    pub image_max_mb: u32,
    /// Longest time for building and pushing, in seconds.
    pub time_limit_secs: u32,
    /// Cgroup that the containers of builds run below: a slice of systemd, or empty for the Engine's default.
    pub slice: String,
}

impl Default for BuilderConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 1986))],
            name: None,
            idle_exit_secs: 60,
            drain_secs: 30,
            give_up_secs: 60,
            state_dir: "/var/lib/dinp/builder".into(),
            runtimes_dir: None,
            docker_socket: "/run/docker.sock".into(),
            base_tag: None,
            concurrent_builds: 2,
            packages_per_person: 5,
            packages_max: 50,
            spool_max_mb: 8192,
            image_keep_days: 14,
            bases: BTreeMap::new(),
            package: PackageConfig::default(),
            build: BuildConfig::default(),
            fetch: FetchConfig::default(),
        }
    }
}

impl Default for PackageConfig {
    fn default() -> Self {
        Self {
            max_mb: 1024,
            unpacked_max_mb: 4096,
            max_ratio: 100,
            max_entries: 100_000,
            max_names_mb: 16,
            read_limit_secs: 120,
            upload_stall_secs: 60,
            upload_keep_secs: 3600,
        }
    }
}

impl Default for BuildConfig {
    fn default() -> Self {
        Self {
            direct: true,
            own_dockerfiles: false,
            memory_mb: 1024,
            cpu_millis: 2000,
            image_max_mb: 8192,
            time_limit_secs: 900,
            slice: "dinp-build-containers.slice".into(),
        }
    }
}

impl DaemonConfig for BuilderConfig {
    fn validate(&self, cluster: &ClusterConfig) -> Result<(), ConfigError> {
        let at_least_one = [
            ("concurrent_builds", self.concurrent_builds),
            ("packages_per_person", self.packages_per_person),
            ("packages_max", self.packages_max),
            ("package.max_mb", self.package.max_mb),
            ("package.unpacked_max_mb", self.package.unpacked_max_mb),
            ("package.max_ratio", self.package.max_ratio),
            ("package.max_entries", self.package.max_entries),
            ("package.max_names_mb", self.package.max_names_mb),
            ("package.read_limit_secs", self.package.read_limit_secs),
            ("package.upload_stall_secs", self.package.upload_stall_secs),
            ("package.upload_keep_secs", self.package.upload_keep_secs),
            ("build.image_max_mb", self.build.image_max_mb),
            ("build.time_limit_secs", self.build.time_limit_secs),
            ("fetch.time_limit_secs", self.fetch.time_limit_secs),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(ConfigError::invalid(key, "must be at least 1"));
            }
        }
        for (name, digest) in &self.bases {
            let image = format!("{}/{name}@{digest}", cluster.registry.address);
            if let Err(error) = image.parse::<ImageRef>() {
                return Err(ConfigError::invalid(format!("bases.\"{name}\""), error.to_string()));
            }
        }
        if self.give_up_secs < 30 {
            return Err(ConfigError::invalid("give_up_secs", "must be at least 30: builders speak every five"));
        }
        if self.spool_max_mb < self.package.max_mb {
            return Err(ConfigError::invalid("spool_max_mb", "must be at least package.max_mb"));
        }
        if self.build.memory_mb < 64 {
            return Err(ConfigError::invalid("build.memory_mb", "must be at least 64"));
        }
        if self.build.cpu_millis < 10 {
            return Err(ConfigError::invalid("build.cpu_millis", "must be at least 10"));
        }
        let slice_ok = |slice: &str| {
            slice.strip_suffix(".slice").is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
        };
        if !self.build.slice.is_empty() && !slice_ok(&self.build.slice) {
            return Err(ConfigError::invalid(
                "build.slice",
                "must be a slice such as dinp-build-containers.slice, or empty",
            ));
        }
        if !cluster.registry.insecure {
            return Err(ConfigError::invalid("registry.insecure", "must be true: TLS is not supported yet"));
        }
        Ok(())
    }
}

impl BuilderConfig {
    /// Where the runtimes are.
    pub fn runtimes_dir(loaded: &Loaded<Self>) -> PathBuf {
        loaded.daemon.runtimes_dir.clone().unwrap_or_else(|| loaded.dir.join("builder.d"))
    }

    /// What packages may hold.
    pub fn limits(&self) -> Limits {
        Limits {
            entries: self.package.max_entries as usize,
            name_bytes: u64::from(self.package.max_names_mb) << 20,
            unpacked_bytes: u64::from(self.package.unpacked_max_mb) << 20,
            ratio: u64::from(self.package.max_ratio),
            time: Duration::from_secs(self.package.read_limit_secs.into()),
        }
    }

    /// Longest time for building and pushing.
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs(self.build.time_limit_secs.into())
    }
}
