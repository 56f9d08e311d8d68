//! How running jobs learn that they are to end: those who wait for a task by a value, those who wait in `poll(2)` by a pipe
//! that is closed.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// How fast a job is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// It may run on.
    None,
    /// It is asked to (SIGTERM), and made to a little later.
    Soon,
    /// It is made to (SIGKILL).
    Now,
}

/// The runner's end.
#[derive(Debug)]
pub(super) struct Stop {
    urgency: watch::Sender<Urgency>,
    soon: Option<OwnedFd>,
    now: Option<OwnedFd>,
}

/// A job's end.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    urgency: watch::Receiver<Urgency>,
    soon: Arc<OwnedFd>,
    now: Arc<OwnedFd>,
}

/// Both ends.
pub(super) fn pair() -> io::Result<(Stop, Stopping)> {
    let (sender, receiver) = watch::channel(Urgency::None);
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let ((soon_read, soon), (now_read, now)) = (pipe()?, pipe()?);
    let stop = Stop { urgency: sender, soon: Some(soon), now: Some(now) };
    Ok((stop, Stopping { urgency: receiver, soon: Arc::new(soon_read), now: Arc::new(now_read) }))
}

impl Stop {
    /// Tells everyone, from now on.
    pub(super) fn tell(&mut self, urgency: Urgency) {
        if urgency >= Urgency::Soon {
            self.soon = None;
        }
        if urgency >= Urgency::Now {
            self.now = None;
        }
        self.urgency.send_replace(urgency);
    }
}

impl Stopping {
    /// What holds now.
    pub(super) fn urgency(&self) -> Urgency {
        *self.urgency.borrow()
    }

    /// Waits until it is more than `than`; for ever if the runner is gone.
    pub(super) async fn more_than(&mut self, than: Urgency) -> Urgency {
        let told = self.urgency.wait_for(|urgency| *urgency > than).await.ok().map(|urgency| *urgency);
        match told {
            Some(urgency) => urgency,
            None => std::future::pending().await,
        }
    }

    /// What hangs up when it becomes more than `than`.
    pub(super) fn pipe(&self, than: Urgency) -> BorrowedFd<'_> {
        if than == Urgency::None { self.soon.as_fd() } else { self.now.as_fd() }
    }
}
