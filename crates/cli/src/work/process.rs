//! Slots that run a program for each job: a thread each, which waits for its program and nothing else.
//!
//! Threads, because starting a program takes the one that starts it until the program runs: in one thread that would be one
//! program at a time.

use super::child::{self, Plan};
use super::job::Job;
use super::slots::{Feed, Report, SlotId};
use super::stopping::Stopping;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::sync::mpsc::UnboundedSender;

/// Starts so many. They end when nobody feeds them any more.
pub(super) fn start(
    plan: &Arc<Plan>,
    count: usize,
    stopping: &Stopping,
    reports: &UnboundedSender<Report>,
) -> io::Result<Vec<Feed>> {
    (0..count)
        .map(|number| {
            let (feed, jobs) = mpsc::channel();
            let (plan, stopping, reports) = (Arc::clone(plan), stopping.clone(), reports.clone());
            let thread = thread::Builder::new().name(format!("job-{number}")).stack_size(STACK_BYTES);
            thread.spawn(move || serve(&plan, SlotId(number), &jobs, &stopping, &reports))?;
            Ok(Feed::Thread(feed))
        })
        .collect()
}

fn serve(
    plan: &Plan,
    slot: SlotId,
    jobs: &mpsc::Receiver<Arc<Job>>,
    stopping: &Stopping,
    reports: &UnboundedSender<Report>,
) {
    let mut room = vec![0; ROOM_BYTES];
    while let Ok(job) = jobs.recv() {
        let id = job.id;
        let mut say = |progress| {
            // Without a runner there is nobody to tell.
            let _gone = reports.send(Report::Progress { job: id, progress });
        };
        let ending = child::run(plan, &job, stopping, &mut room, &mut say);
        if reports.send(Report::Ended { slot, job: id, ending: Box::new(ending) }).is_err() {
            return;
        }
    }
}

const STACK_BYTES: usize = 256 << 10;
const ROOM_BYTES: usize = 64 << 10;
