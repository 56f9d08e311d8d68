//! What a job's program may use, which the system enforces.
//!
//! Limits are set from outside (`prlimit`), as the program starts: so it can be started in the fastest way there is, and
//! nothing has to run between fork and exec. What it starts itself has the same limits, each process for itself.

use rustix::process::Pid;
use std::io;

/// The limits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// Octets of data (heap and private mappings; what a runtime only reserves does not count).
    pub(super) memory_bytes: Option<u64>,
    /// Seconds of processor time.
    pub(super) cpu_seconds: Option<u64>,
}

impl Limits {
    /// Whether this system can.
    pub(super) const SUPPORTED: bool = cfg!(target_os = "linux");

    /// Sets them for a process.
    #[cfg(target_os = "linux")]
    pub(super) fn set(self, pid: Pid) -> io::Result<()> {
        use rustix::process::{Resource, Rlimit, prlimit};
        if let Some(bytes) = self.memory_bytes {
            prlimit(Some(pid), Resource::Data, Rlimit { current: Some(bytes), maximum: Some(bytes) })?;
        }
        if let Some(seconds) = self.cpu_seconds {
            // SIGXCPU first, which says what it was; SIGKILL a second later for who does not listen.
            prlimit(Some(pid), Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })?;
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn set(self, _pid: Pid) -> io::Result<()> {
        Ok(())
    }
}

/// `512M` in octets.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].trim_end_matches(['B', 'b', 'i']) {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return Err(format!("{text:?} is no size; write 512M or 2G")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size; write 512M or 2G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is more than there can be"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes("100"), Ok(100));
        assert!(bytes("M").is_err() && bytes("1T").is_err() && bytes("99999999999999999999").is_err());
    }
}
