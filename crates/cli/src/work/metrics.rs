//! What the runner has done, for Prometheus.

use super::ending::Verdict;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Counters, and what is at the moment.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    queues: Vec<Queue>,
    pub(super) running: usize,
    pub(super) waiting: usize,
    pub(super) is_connected: bool,
    pub(super) connections_lost: u64,
    /// Jobs that ended while there was no connection.
    pub(super) unsettled: u64,
    /// Jobs that came again while they ran, and were not begun twice.
    pub(super) joined: u64,
    pub(super) programs_ended: u64,
}

#[derive(Debug, Default)]
struct Queue {
    name: String,
    ended: [u64; Verdict::ALL.len()],
    /// How many took up to the bound of that place, each for itself.
    took: [u64; BOUNDS.len()],
    took_seconds: f64,
}

impl Metrics {
    pub(super) fn new(queues: impl Iterator<Item = String>) -> Self {
        Self { queues: queues.map(|name| Queue { name, ..Queue::default() }).collect(), ..Self::default() }
    }

    /// A job of the queue has ended.
    pub(super) fn ended(&mut self, queue: &str, verdict: Verdict, took: Duration) {
        let Some(queue) = self.queues.iter_mut().find(|known| known.name == queue) else { return };
        queue.ended[verdict as usize] += 1;
        if verdict != Verdict::Return {
            let seconds = took.as_secs_f64();
            queue.took_seconds += seconds;
            if let Some(at) = BOUNDS.iter().position(|bound| seconds <= *bound) {
                queue.took[at] += 1;
            }
        }
    }

    /// How many ended in that way.
    pub(super) fn total(&self, verdict: Verdict) -> u64 {
        self.queues.iter().map(|queue| queue.ended[verdict as usize]).sum()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _infallible = write!(out, "# HELP leveret_work_{name} {help}\n# TYPE leveret_work_{name} {kind}\n");
        };
        head(&mut out, "jobs_total", "counter", "Jobs that ended, by queue and result.");
        for queue in &self.queues {
            for verdict in Verdict::ALL {
                let (name, count) = (label(&queue.name), queue.ended[verdict as usize]);
                let result = verdict.name();
                let _infallible =
                    writeln!(out, "leveret_work_jobs_total{{queue=\"{name}\",result=\"{result}\"}} {count}");
            }
        }
        head(&mut out, "job_duration_seconds", "histogram", "How long jobs ran.");
        for queue in &self.queues {
            let name = label(&queue.name);
            let mut count = 0;
            for (bound, more) in BOUNDS.iter().zip(queue.took) {
                count += more;
                let _infallible = writeln!(
                    out,
                    "leveret_work_job_duration_seconds_bucket{{queue=\"{name}\",le=\"{bound}\"}} {count}"
                );
            }
            let all: u64 = queue.ended.iter().sum::<u64>() - queue.ended[Verdict::Return as usize];
            let seconds = queue.took_seconds;
            let _infallible = write!(
                out,
                "leveret_work_job_duration_seconds_bucket{{queue=\"{name}\",le=\"+Inf\"}} {all}\n\
                 leveret_work_job_duration_seconds_sum{{queue=\"{name}\"}} {seconds}\n\
                 leveret_work_job_duration_seconds_count{{queue=\"{name}\"}} {all}\n"
            );
        }
        for (name, kind, value, help) in [
            ("jobs_running", "gauge", self.running as u64, "Jobs that run."),
            ("jobs_waiting", "gauge", self.waiting as u64, "Jobs that came and wait for a free slot."),
            ("connected", "gauge", u64::from(self.is_connected), "1 while there is a connection to a broker."),
            ("connections_lost_total", "counter", self.connections_lost, "Connections that were lost."),
            ("jobs_unsettled_total", "counter", self.unsettled, "Jobs that ended while there was no connection."),
            ("jobs_joined_total", "counter", self.joined, "Jobs that came again while they ran, and ran once."),
            (
                "programs_ended_total",
                "counter",
                self.programs_ended,
                "Programs of --mode lines that ended by themselves.",
            ),
        ] {
            head(&mut out, name, kind, help);
            let _infallible = writeln!(out, "leveret_work_{name} {value}");
        }
        out
    }
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Serves them to whoever asks, on any path.
pub(super) async fn serve(address: SocketAddr, metrics: Arc<Mutex<Metrics>>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answering = answer(stream, Arc::clone(&metrics));
                    // Whoever asks slowly is not waited for.
                    tokio::spawn(tokio::time::timeout(ANSWER_PATIENCE, answering));
                }
                // No descriptors, say.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(bound)
}

async fn answer(mut stream: TcpStream, metrics: Arc<Mutex<Metrics>>) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|octets| octets == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let text = metrics.lock().unwrap_or_else(PoisonError::into_inner).text();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

const BOUNDS: [f64; 14] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0];
const REQUEST_BYTES_MAX: usize = 16 << 10;
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_counted_by_queue_result_and_time() {
        let mut metrics = Metrics::new(["a\"b".to_owned(), "c".to_owned()].into_iter());
        metrics.ended("a\"b", Verdict::Done, Duration::from_millis(3));
        metrics.ended("a\"b", Verdict::Dead, Duration::from_secs(9999));
        metrics.ended("a\"b", Verdict::Return, Duration::ZERO);
        let text = metrics.text();
        for line in [
            r#"leveret_work_jobs_total{queue="a\"b",result="done"} 1"#,
            r#"leveret_work_jobs_total{queue="c",result="done"} 0"#,
            r#"leveret_work_job_duration_seconds_bucket{queue="a\"b",le="0.005"} 1"#,
            r#"leveret_work_job_duration_seconds_bucket{queue="a\"b",le="3600"} 1"#,
            r#"leveret_work_job_duration_seconds_bucket{queue="a\"b",le="+Inf"} 2"#,
            r#"leveret_work_job_duration_seconds_count{queue="a\"b"} 2"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
