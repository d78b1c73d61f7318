//! This machine: programs, files, units and addresses. Programs get argument vectors, never a shell's line, and secrets
//! on their standard input.

use super::error::SetupError;
use dinp_common::credentials::Secret;
use nix::unistd::{Gid, Group, Uid, User};
use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// Runs a program and returns what it printed.
pub async fn run(program: &str, arguments: &[&str], input: Option<&Secret>) -> Result<String, SetupError> {
    let spawn = |source| SetupError::Spawn { program: program.to_owned(), source };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn)?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that does not read to its end says itself what it dislikes.
        pipe.write_all(input.expose().as_bytes()).await.ok();
    }
    let output = child.wait_with_output().await.map_err(spawn)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(SetupError::Command { command: format!("{program} {}", arguments.join(" ")), output: said })
}

/// Whether a program runs and succeeds.
pub async fn succeeds(program: &str, arguments: &[&str], input: Option<&Secret>) -> bool {
    run(program, arguments, input).await.is_ok()
}

/// Where a program is, in the directories of the system.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    directories.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

/// Reads a file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<String>, SetupError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SetupError::file("read", path)(error)),
    }
}

/// Who a file belongs to, and who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// User.
    pub user: &'static str,
    /// Group.
    pub group: &'static str,
    /// Permission bits.
    pub mode: u32,
}

impl Access {
    /// For everybody to read.
    pub const PUBLIC: Self = Self { user: "root", group: "root", mode: 0o644 };
    /// For root alone.
    pub const SECRET: Self = Self { user: "root", group: "root", mode: 0o600 };
    /// For the daemons: configuration.
    pub const CONFIG: Self = Self { user: "root", group: "dinp", mode: 0o640 };

    fn ids(self) -> Result<(Uid, Gid), SetupError> {
        let user = User::from_name(self.user).ok().flatten();
        let group = Group::from_name(self.group).ok().flatten();
        match (user, group) {
            (Some(user), Some(group)) => Ok((user.uid, group.gid)),
            (None, _) => Err(SetupError::Refused(format!("there is no user {}: is its package installed?", self.user))),
            (_, None) => {
                Err(SetupError::Refused(format!("there is no group {}: is its package installed?", self.group)))
            }
        }
    }

    /// Whether a file has it.
    pub fn holds(self, path: &Path) -> Result<bool, SetupError> {
        let (user, group) = self.ids()?;
        let meta = fs::metadata(path).map_err(SetupError::file("look at", path))?;
        Ok(meta.uid() == user.as_raw() && meta.gid() == group.as_raw() && meta.mode() & 0o7777 == self.mode)
    }
}

/// Behind address translation it is right; otherwise it is the bundle of another machine.
pub fn warn_if_foreign(address: IpAddr) {
    if !is_own_address(address) {
        eprintln!("note: the bundle's address {address} is none of this machine's own");
    }
}

/// Writes a file as a whole: a reader sees the old one or the new one, after a power cut too.
pub fn write(path: &Path, content: &str, access: Access) -> Result<(), SetupError> {
    let (user, group) = access.ids()?;
    if let Some(parent) = path.parent()
        && !parent.is_dir()
    {
        fs::create_dir_all(parent).map_err(SetupError::file("create directory", parent))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let writing = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content.as_bytes())?;
        nix::unistd::chown(&new, Some(user), Some(group))?;
        file.set_permissions(fs::Permissions::from_mode(access.mode))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
    };
    writing().map_err(SetupError::file("write", path))
}

/// The address that this machine sends from towards the world, without sending anything.
pub fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // TEST-NET-1: connecting a datagram socket asks the routing table and nobody else.
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}

/// Whether an address is one of this machine's.
pub fn is_own_address(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

/// This machine's name, without its domain.
pub fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let name = name.split('.').next()?.to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

/// Tries until it works or the time is over; returns the last error then.
pub async fn retry<T>(
    time: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, SetupError>,
) -> Result<T, SetupError> {
    let deadline = Instant::now() + time;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Set-up changes what belongs to root.
pub fn need_root() -> Result<(), SetupError> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    Err(SetupError::Refused("this needs root: run it with sudo".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_program_says_what_it_said() {
        let error = run("ls", &["/does/not/exist"], None).await.unwrap_err().to_string();
        assert!(error.starts_with("ls /does/not/exist failed: "), "{error}");
        assert!(run("no-such-program", &[], None).await.unwrap_err().to_string().starts_with("start no-such-program"));
    }

    #[tokio::test]
    async fn input_goes_to_standard_input() {
        assert_eq!(run("cat", &[], Some(&Secret::new("geheim"))).await.unwrap(), "geheim");
    }

    #[test]
    fn loopback_is_our_own() {
        assert!(is_own_address("127.0.0.1".parse().unwrap()));
        assert!(!is_own_address("192.0.2.1".parse().unwrap()));
    }
}
