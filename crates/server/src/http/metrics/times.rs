//! Histograms of how long messages took: of each queue, and of all queues that there ever were.

use super::Seen;
use super::page::{IntoNumber as _, Labels, Page};
use broker::histogram::{BUCKETS, Histogram, Latencies};
use broker::inspect::QueueView;
use std::sync::{Mutex, PoisonError};

/// The sums over all queues, as counters that never fall when a queue goes.
#[derive(Debug, Default)]
pub(in crate::http) struct Times(Mutex<[SeenHistogram; 2]>);

#[derive(Debug, Default)]
struct SeenHistogram {
    counts: [Seen; BUCKETS],
    sum_ms: Seen,
}

/// What each histogram is called after its prefix, what it says, and which it is.
type Named = (&'static str, &'static str, fn(&Latencies) -> &Histogram);

const NAMED: [Named; 2] = [
    ("time_in_queue_seconds", "From publish, or when it was due, to the first delivery", |times| &times.in_queue),
    ("time_to_ack_seconds", "From a delivery to its acknowledgement", |times| &times.to_ack),
];

impl Times {
    /// Writes the sums.
    pub(super) fn write(&self, queues: &[QueueView], page: &mut Page) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((name, help, of), seen) in NAMED.iter().zip(seen.iter_mut()) {
            let mut all = Histogram::default();
            queues.iter().filter_map(|queue| queue.latencies.as_deref()).for_each(|times| all.add(of(times)));
            let mut counts = *all.counts();
            counts.iter_mut().zip(&mut seen.counts).for_each(|(count, seen)| *count = seen.see(*count));
            let sum_ms = seen.sum_ms.see(all.sum_ms());
            write(&format!("leveret_{name}"), help, [(&[][..], &counts, sum_ms)], page);
        }
    }
}

/// Writes those of each queue.
pub(super) fn write_queues(queues: &[&QueueView], page: &mut Page) {
    let labels: Vec<_> =
        queues.iter().map(|queue| [("vhost", &*queue.spec.vhost_name), ("queue", &*queue.spec.name)]).collect();
    for (name, help, of) in NAMED {
        let all = queues.iter().zip(&labels).filter_map(|(queue, labels)| {
            let histogram = of(queue.latencies.as_deref()?);
            Some((&labels[..], histogram.counts(), histogram.sum_ms()))
        });
        write(&format!("leveret_queue_{name}"), help, all, page);
    }
}

fn write<'a>(
    name: &str,
    help: &str,
    histograms: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], &'a [u64; BUCKETS], u64)>,
    page: &mut Page,
) {
    let bounds = Histogram::BOUNDS_MS.iter().map(|ms| (ms.number() / 1000.0).to_string());
    let bounds: Vec<_> = bounds.chain(["+Inf".to_owned()]).collect();
    let Some(mut family) = page.begin(name, "histogram", help) else { return };
    for (labels, counts, sum_ms) in histograms {
        let mut count = 0;
        for (bound, more) in bounds.iter().zip(counts) {
            count += more;
            let labels = labels.iter().copied().chain([("le", bound.as_str())]);
            family.add("_bucket", &Labels::new(labels), count);
        }
        let labels = Labels::new(labels.iter().copied());
        family.add("_sum", &labels, sum_ms.number() / 1000.0);
        family.add("_count", &labels, count);
    }
}
