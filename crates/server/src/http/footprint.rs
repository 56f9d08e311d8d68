//! What the process takes of its machine. What a system does not tell is `None`, never a guess.

use std::fs;
use std::path::Path;

/// `leveret@HOST`, in the form of RabbitMQ's node names.
pub(super) fn node_name() -> String {
    let names = rustix::system::uname();
    let host = names.nodename().to_str().unwrap_or_default();
    let host = host.split('.').next().filter(|host| !host.is_empty()).unwrap_or("localhost");
    format!("leveret@{host}")
}

/// Resident memory in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    field_kib("/proc/self/status", "VmRSS:")
}

/// The memory that the process could have at most, in bytes: its cgroup's limit, else the machine's memory.
pub(super) fn memory_bytes() -> Option<u64> {
    let machine = field_kib("/proc/meminfo", "MemTotal:");
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => Some(u64::min(machine, group)),
        (machine, group) => machine.or(group),
    }
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
        assert!(resident_bytes().unwrap() < memory_bytes().unwrap());
        assert!(open_files().unwrap() > 0);
        assert!(files_max().is_none_or(|max| max >= open_files().unwrap()));
        assert!(disk_free_bytes(Path::new("/")).is_some());
        assert!(node_name().starts_with("leveret@"));
    }
}
