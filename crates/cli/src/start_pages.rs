//! Lets go of what only the start needed of the program's own files.
//!
//! A start runs once through most of the program: relocations, flags, settings, recovery. Each place that is touched maps
//! 64 KiB of the file or more, and they stay mapped, 13 MB of resident memory, until the system is short of it. Given up
//! when the start is over, those few that go on being used come back from the page cache, by faults of a microsecond.
//!
//! Only areas that nobody has written to are given up, as the program's code: what stands there is in the file. They are
//! noted while the process has one thread, so that no library is being loaded meanwhile.

use std::fs;
use std::ops::Range;

/// Areas of memory that are as their files are.
#[derive(Debug)]
pub(crate) struct StartPages(Vec<Range<usize>>);

impl StartPages {
    /// Those of this process. To be called while it has one thread. None where the system does not tell.
    pub(crate) fn note() -> Self {
        Self(unwritten(&fs::read_to_string("/proc/self/smaps").unwrap_or_default()))
    }

    /// Gives them up until they are needed again.
    pub(crate) fn let_go(self) {
        for area in self.0 {
            give_up(area);
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the system is told of memory by its address")]
fn give_up(area: Range<usize>) {
    use rustix::mm::{Advice, madvise};
    let start = std::ptr::with_exposed_provenance_mut(area.start);
    // SAFETY: The area is a private mapping of a file that was never written to and never will be (it was read-only when
    // the process had one thread, and the dynamic linker was done with it): what is read there afterwards is the file,
    // as before. It may refuse, as where memory is locked; then all is as it was.
    let _refused = unsafe { madvise(start, area.len(), Advice::LinuxDontNeed) };
}

#[cfg(not(target_os = "linux"))]
fn give_up(_: Range<usize>) {}

/// The read-only areas of files of which no page is a copy, in memory or swapped out, by what `/proc/PID/smaps` says.
fn unwritten(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut area: Option<Range<usize>> = None;
    for line in smaps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some(first) = fields.next() else { continue };
        if !first.ends_with(':') {
            found.extend(area.take());
            let is_read_only = fields.next().is_some_and(|rights| rights == "r-xp" || rights == "r--p");
            let is_of_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
            area = range(first).filter(|_| is_read_only && is_of_file);
        } else if matches!(first, "Anonymous:" | "Swap:" | "Locked:") && fields.next() != Some("0") {
            area = None;
        }
    }
    found.extend(area);
    found
}

/// `55a8bdaca000-55a8bdad0000`
fn range(text: &str) -> Option<Range<usize>> {
    let (start, end) = text.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_areas_of_files_that_nobody_wrote_to_are_given_up() {
        let smaps = "\
1000-3000 r-xp 00002000 fe:00 123    /usr/bin/with a blank
Size:                  8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
3000-4000 r--p 00004000 fe:00 123    /usr/bin/relocated
Anonymous:             4 kB
Swap:                  0 kB
4000-5000 r--p 00004000 fe:00 123    /usr/bin/relocated-and-swapped
Anonymous:             0 kB
Swap:                  4 kB
5000-6000 rw-p 00004000 fe:00 123    /usr/bin/data
Anonymous:             0 kB
Swap:                  0 kB
6000-7000 r-xp 00000000 00:00 0      [vdso]
Anonymous:             0 kB
7000-8000 r--p 00000000 00:00 0
Anonymous:             0 kB
9000-a000 r--p 00000000 fe:00 7      /usr/lib/libc.so.6
Anonymous:             0 kB
";
        assert_eq!(unwritten(smaps), [0x1000..0x3000, 0x9000..0xa000]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_goes_on_without_them() {
        let pages = StartPages(unwritten(&fs::read_to_string("/proc/self/smaps").unwrap()));
        assert!(!pages.0.is_empty());
        pages.let_go();
        assert_eq!(format!("{}", 40 + 2), "42");
    }
}
