//! The Docker Engine behind its socket: every call has a deadline, and says what it was for when it fails.
//!
//! The API version is negotiated when a connection is first needed and again after [`Engine::forget`],
//! because the engine may have been replaced by another version meanwhile.

use bollard::errors::Error as Bollard;
use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longer than any call here: deadlines are set per call.
const UNLIMITED_SECS: u64 = 24 * 3600;

/// Why a call to the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It answered nothing in time.
    #[error("{act}: the docker engine has not answered for {} s", limit.as_secs())]
    Hangs {
        /// What was tried.
        act: String,
        /// How long.
        limit: Duration,
    },
    /// It refused.
    #[error("{act}: {message}")]
    Refused {
        /// What was tried.
        act: String,
        /// Its status.
        status: u16,
        /// Its reason.
        message: String,
    },
    /// It ended a stream that has no end.
    #[error("{act}: the stream has ended")]
    Ended {
        /// What was read.
        act: String,
    },
    /// There is no connection to it, or its answer makes no sense.
    #[error("{act}")]
    Unreachable {
        /// What was tried.
        act: String,
        /// Why it failed.
        #[source]
        source: Box<Bollard>,
    },
}

impl EngineError {
    fn new(act: String, error: Bollard) -> Self {
        match error {
            Bollard::DockerResponseServerError { status_code, message } => {
                Self::Refused { act, status: status_code, message }
            }
            Bollard::DockerStreamError { error } => Self::Refused { act, status: 500, message: error },
            error => Self::Unreachable { act, source: Box::new(error) },
        }
    }

    /// The thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The name is taken, or the thing is in another state.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// The port is in use.
    pub fn is_port_taken(&self) -> bool {
        let Self::Refused { message, .. } = self else { return false };
        message.contains("port is already allocated") || message.contains("address already in use")
    }

    /// The engine itself is the trouble, and not what it was asked for.
    pub fn is_of_the_engine(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// The engine of this machine.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
    limit: Duration,
    connected: Arc<Mutex<Option<Docker>>>,
}

impl Engine {
    /// The engine behind a socket; nothing is called yet.
    pub fn new(socket: PathBuf, limit: Duration) -> Self {
        Self { socket, limit, connected: Arc::default() }
    }

    /// Time that a call which should be quick may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The client, with a version that both sides speak.
    pub async fn docker(&self) -> Result<Docker, EngineError> {
        if let Some(docker) = self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(docker);
        }
        let act = || format!("connect to the docker engine at {}", self.socket.display());
        let fresh = Docker::connect_with_unix(&self.socket.to_string_lossy(), UNLIMITED_SECS, API_DEFAULT_VERSION)
            .map_err(|error| EngineError::new(act(), error))?
            .with_request_modifier(url_safe_auth);
        let docker = within(self.limit, act(), fresh.negotiate_version()).await?;
        tracing::info!(version = %docker.client_version(), "connected to the docker engine");
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(docker.clone());
        Ok(docker)
    }

    /// Negotiates anew at the next call.
    pub fn forget(&self) {
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A call that should be quick.
    pub async fn call<T, F>(&self, act: impl Into<String>, call: impl FnOnce(Docker) -> F) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, Bollard>>,
    {
        self.call_within(self.limit, act, call).await
    }

    /// A call with its own deadline.
    pub async fn call_within<T, F>(
        &self,
        limit: Duration,
        act: impl Into<String>,
        call: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, Bollard>>,
    {
        let docker = self.docker().await?;
        within(limit, act.into(), call(docker)).await
    }
}

/// What an engine is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Whether its cgroup driver is systemd.
    pub systemd_cgroups: bool,
    /// Whether it can limit the size of a container's layer.
    pub sized_layers: bool,
    /// Where it keeps everything.
    pub root: Option<PathBuf>,
}

impl Traits {
    /// As it says itself; what it leaves out is read from the kernel's list of mounts.
    pub fn of(info: &SystemInfo, mounts: &str) -> Self {
        let root = info.docker_root_dir.as_ref().map(PathBuf::from);
        let has_quotas = root.as_ref().is_some_and(|root| has_project_quotas(root, mounts));
        Self {
            systemd_cgroups: info.cgroup_driver == Some(SystemInfoCgroupDriverEnum::SYSTEMD),
            sized_layers: info.driver.as_deref() == Some("overlay2") && has_quotas,
            root,
        }
    }
}

/// Whether the path is on an XFS with project quotas, by which overlay2 limits layers.
fn has_project_quotas(path: &Path, mounts: &str) -> bool {
    let holding = mounts.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, at, kind, options, ..] = words[..] else { return None };
        path.starts_with(at).then_some((at.len(), kind, options))
    });
    let holding = holding.max_by_key(|(length, ..)| *length);
    holding.is_some_and(|(_, kind, options)| {
        kind == "xfs" && options.split(',').any(|option| matches!(option, "prjquota" | "pquota"))
    })
}

/// Turns what the client library says into an error of ours.
pub fn failed(act: impl Into<String>, error: Bollard) -> EngineError {
    EngineError::new(act.into(), error)
}

async fn within<T>(
    limit: Duration,
    act: String,
    call: impl Future<Output = Result<T, Bollard>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(EngineError::new(act, error)),
        Err(_) => Err(EngineError::Hangs { act, limit }),
    }
}

/// The engine decodes credentials as URL-safe base64 and takes what it cannot decode for none; the library
/// encodes them with the other alphabet.
fn url_safe_auth(mut request: BollardRequest) -> BollardRequest {
    const HEADER: &str = "x-registry-auth";
    let safe = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).map(url_safe);
    if let Some(value) = safe.and_then(|text| text.parse().ok()) {
        request.headers_mut().insert(HEADER, value);
    }
    request
}

fn url_safe(text: &str) -> String {
    text.replace('+', "-").replace('/', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;

    #[tokio::test]
    async fn a_missing_engine_is_named() {
        let engine = Engine::new("/nonexistent/docker.sock".into(), Duration::from_secs(1));
        let error = engine.docker().await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/docker.sock") && error.is_of_the_engine());
    }

    #[tokio::test]
    async fn an_engine_that_hangs_is_told() {
        let dir = TestDir::new("agent-docker");
        let socket = dir.path().join("docker.sock");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let engine = Engine::new(socket, Duration::from_millis(50));
        let error = engine.docker().await.unwrap_err();
        assert!(matches!(error, EngineError::Hangs { .. }), "{error}");
        assert!(error.to_string().ends_with("has not answered for 0 s"));
    }

    #[test]
    fn layers_can_be_limited_on_xfs_with_project_quotas() {
        let info = SystemInfo {
            driver: Some("overlay2".into()),
            docker_root_dir: Some("/var/lib/docker".into()),
            ..SystemInfo::default()
        };
        let can = |info: &SystemInfo, mounts: &str| Traits::of(info, mounts).sized_layers;
        let with_quotas = "/dev/a / ext4 rw 0 0\n/dev/b /var/lib/docker xfs rw,relatime,prjquota 0 0\n";
        assert!(can(&info, with_quotas));
        assert!(!can(&info, "/dev/a / xfs rw,prjquota 0 0\n/dev/b /var/lib/docker ext4 rw 0 0\n"));
        assert!(!can(&info, "/dev/b /var/lib/docker xfs rw,noquota 0 0\n"));
        assert!(!can(&SystemInfo { driver: Some("vfs".into()), ..info }, with_quotas));
    }

    #[test]
    fn refusals_are_told_apart() {
        let error = |status_code, message: &str| {
            EngineError::new(
                "start x".into(),
                Bollard::DockerResponseServerError { status_code, message: message.into() },
            )
        };
        assert!(error(404, "No such container: x").is_not_found());
        assert!(error(409, "Conflict").is_conflict());
        assert!(error(500, "driver failed: Bind for 0.0.0.0:20000 failed: port is already allocated").is_port_taken());
        assert!(!error(500, "exec: \"nope\": not found").is_port_taken());
        assert_eq!(url_safe("a+b/c="), "a-b_c=");
    }
}
