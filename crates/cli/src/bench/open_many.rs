//! Many connections at once, so that a broker that takes its time over each is not waited for one by one.

use std::thread;

use anyhow::{Result, anyhow};

/// What `open` makes of each number below `count`, in the order of the numbers.
///
/// # Errors
/// The first that failed.
pub(super) fn open_many<T: Send>(count: u32, open: impl Fn(u32) -> Result<T> + Sync) -> Result<Vec<T>> {
    let threads = THREADS.min(count).max(1);
    let mut opened = thread::scope(|scope| {
        let open = &open;
        let opening: Vec<_> = (0..threads)
            .map(|thread| {
                let numbers = (0..count).filter(move |number| number % threads == thread);
                scope.spawn(move || numbers.map(|number| Ok((number, open(number)?))).collect::<Result<Vec<_>>>())
            })
            .collect();
        let joined = opening.into_iter().map(|it| it.join().map_err(|_| anyhow!("a thread of the load died"))?);
        joined.collect::<Result<Vec<_>>>().map(|opened| opened.into_iter().flatten().collect::<Vec<_>>())
    })?;
    opened.sort_unstable_by_key(|(number, _)| *number);
    Ok(opened.into_iter().map(|(_, opened)| opened).collect())
}

/// Each connection takes a file descriptor, and most systems give a process 1,024 unless it asks for more.
pub(super) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Refused, it shows when no more can be opened.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many connections are opened at the same time.
const THREADS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn all_are_opened_in_order_or_none() {
        assert_eq!(open_many(10, |number| Ok(number * 2)).unwrap(), (0..10).map(|it| it * 2).collect::<Vec<_>>());
        assert!(open_many(0, |_| Ok(())).unwrap().is_empty());
        assert!(open_many(10, |number| if number == 7 { bail!("no") } else { Ok(()) }).is_err());
    }
}
