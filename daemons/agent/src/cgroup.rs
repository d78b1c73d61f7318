//! Where the kernel keeps the control group of a process, in either of its two hierarchies.

use crate::instance::{container_of, inspect_raw};
use crate::shared::Shared;
use dinp_common::model::InstanceId;
use std::path::{Path, PathBuf};

/// Where control groups are.
const ROOT: &str = "/sys/fs/cgroup";

/// The first process of an instance's container, and its control group for one controller; nothing where it does not run.
pub async fn of_instance(shared: &Shared, instance: &InstanceId, controller: &str) -> Option<(i64, Group)> {
    let container = container_of(shared, instance).await.ok()??;
    let pid = inspect_raw(shared, &container).await.ok()??.state?.pid.filter(|pid| *pid > 0)?;
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    Group::of(&cgroups, controller).map(|group| (pid, group))
}

/// The control group of a process, for one controller.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Its directory.
    pub dir: PathBuf,
    /// Whether one hierarchy has all controllers (v2).
    pub is_unified: bool,
}

impl Group {
    /// By what `/proc/<pid>/cgroup` says of the process.
    pub fn of(cgroups: &str, controller: &str) -> Option<Self> {
        let root = Path::new(ROOT);
        let of = |wanted: &str| {
            let path = cgroups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                (parts.next()? == wanted).then(|| parts.next())?
            });
            path.map(|path| path.trim_start_matches('/').to_owned())
        };
        match of(controller) {
            Some(path) => Some(Self { dir: root.join(controller).join(path), is_unified: false }),
            None => Some(Self { dir: root.join(of("")?), is_unified: true }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_have_a_place_for_each_controller() {
        let dir = |cgroups| Group::of(cgroups, "pids").unwrap().dir.display().to_string();
        assert_eq!(dir("0::/dinp.slice/a.scope\n"), "/sys/fs/cgroup/dinp.slice/a.scope");
        assert_eq!(dir("5:pids:/x\n4:memory:/docker/a\n0::/y\n"), "/sys/fs/cgroup/pids/x");
        assert_eq!(Group::of("", "pids"), None);
    }
}
