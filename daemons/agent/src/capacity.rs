//! What the machine has for instances: the least of host, own cgroup and configuration.

use crate::config::AgentConfig;
use dinp_common::api::agent::Capacity;
use std::path::Path;

const MIB: u64 = 1024 * 1024;

/// Reads it.
pub fn capacity(config: &AgentConfig) -> Capacity {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let host = host_memory(&read("/proc/meminfo"));
    let cgroup = cgroup_memory(&read("/proc/self/cgroup"), &|path| std::fs::read_to_string(path).ok());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    least(host, cgroup, cpus, config)
}

fn least(host_bytes: Option<u64>, cgroup_bytes: Option<u64>, cpus: usize, config: &AgentConfig) -> Capacity {
    let has = host_bytes.into_iter().chain(cgroup_bytes).min().unwrap_or(0) / MIB;
    let left = u32::try_from(has).unwrap_or(u32::MAX).saturating_sub(config.reserve_memory_mb);
    let cpu_millis = u32::try_from(cpus).unwrap_or(u32::MAX).saturating_mul(1000);
    Capacity {
        memory_mb: config.memory_mb.map_or(left, |set| set.min(left)),
        cpu_millis: config.cpu_millis.map_or(cpu_millis, |set| set.min(cpu_millis)),
    }
}

fn host_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// The limit of the outermost cgroup that has one: that of the container or virtual host that the whole
/// machine is, never of the agent's own unit.
fn cgroup_memory(own: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    // Version 2 has one line `0::/path`; version 1 one with the memory controller. The unit's own limit is
    // the agent's, so only the root of what is seen here counts.
    let is_v1 =
        own.lines().any(|line| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|n| n == "memory")));
    let file = if is_v1 { "/sys/fs/cgroup/memory/memory.limit_in_bytes" } else { "/sys/fs/cgroup/memory.max" };
    read(Path::new(file))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(memory_mb: Option<u32>, cpu_millis: Option<u32>) -> AgentConfig {
        AgentConfig { memory_mb, cpu_millis, reserve_memory_mb: 100, ..AgentConfig::default() }
    }

    #[test]
    fn the_least_counts() {
        let both = |capacity: Capacity| (capacity.memory_mb, capacity.cpu_millis);
        assert_eq!(both(least(Some(1000 * MIB), None, 2, &config(None, None))), (900, 2000));
        assert_eq!(both(least(Some(1000 * MIB), Some(400 * MIB), 2, &config(None, Some(500)))), (300, 500));
        assert_eq!(both(least(Some(1000 * MIB), Some(u64::MAX), 2, &config(Some(256), Some(9000)))), (256, 2000));
        assert_eq!(both(least(Some(50 * MIB), None, 1, &config(None, None))), (0, 1000));
    }

    #[test]
    fn files_of_the_kernel() {
        assert_eq!(host_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 * MIB));
        let v1 = |path: &Path| (path.ends_with("memory/memory.limit_in_bytes")).then(|| "1048576\n".to_owned());
        assert_eq!(cgroup_memory("3:cpu:/\n2:memory:/system.slice\n", &v1), Some(MIB));
        let v2 = |path: &Path| path.ends_with("cgroup/memory.max").then(|| "max\n".to_owned());
        assert_eq!(cgroup_memory("0::/system.slice\n", &v2), None);
    }
}
