//! What the process takes of its machine. What a system does not tell is `None`, never a guess.

use std::fs;
use std::path::{Path, PathBuf};

/// `leveret@HOST`, in the form of RabbitMQ's node names.
pub(super) fn node_name() -> String {
    let host = host_name();
    let host = host.split('.').next().filter(|host| !host.is_empty()).unwrap_or("localhost");
    format!("leveret@{host}")
}

/// What this machine calls itself; empty if it has no name.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_str().unwrap_or_default().to_owned()
}

/// Resident memory in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split_ascii_whitespace().nth(1)?.parse().ok()?;
    resident.checked_mul(rustix::param::page_size() as u64)
}

/// The memory that the process could have at most, in bytes: the machine's, or less if a cgroup limits it.
pub(super) fn memory_bytes() -> Option<u64> {
    let machine = field_kib("/proc/meminfo", "MemTotal:");
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    group_limit_files(&groups).into_iter().filter_map(limit).chain(machine).min()
}

/// The files that may limit the memory of a process, by its `/proc/PID/cgroup`: those of its groups and of all groups
/// above. In a container the groups' names are often those outside, and only the topmost file is there.
fn group_limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            named if named.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Outside a cgroup namespace's root the group is shown as `/../..`: what limits it there is not for us to see.
        let group = Path::new(group.trim_start_matches('/'));
        let is_ours = !group.components().any(|part| part == std::path::Component::ParentDir);
        let group = if is_ours { group } else { Path::new("") };
        files.extend(group.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

/// Open file descriptors.
pub(super) fn open_files() -> Option<u64> {
    // One of them is the one that lists them.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

/// How many file descriptors there may be.
pub(super) fn files_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Bytes that may still be written to the file system of this directory.
pub(super) fn disk_free_bytes(directory: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(directory).ok()?;
    space.f_bavail.checked_mul(space.f_frsize)
}

/// How many threads can run at once.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A line `NAME:   NUMBER kB`, in bytes.
fn field_kib(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_something_and_less_than_there_is() {
        assert!((1 << 20..memory_bytes().unwrap()).contains(&resident_bytes().unwrap()));
        assert!(open_files().unwrap() > 0);
        assert!(files_max().is_none_or(|max| max >= open_files().unwrap()));
        assert!(disk_free_bytes(Path::new("/")).is_some());
        assert!(node_name().starts_with("leveret@"));
    }

    #[test]
    fn a_cgroup_is_limited_by_itself_and_by_those_above() {
        let files = |groups| -> Vec<_> {
            group_limit_files(groups).into_iter().map(|file| file.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(
            files("0::/system.slice/leveret.service\n"),
            [
                "/sys/fs/cgroup/system.slice/leveret.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            files("9:name=systemd:/\n5:cpu,memory:/a:b\n1:cpu:/\n"),
            ["/sys/fs/cgroup/memory/a:b/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert_eq!(files("0::/../../x\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(files("nonsense\n::\n"), ["/sys/fs/cgroup/memory.max"]);
    }
}
