//! Ctrl-C: the first ends a run early, which then tells what it has measured and takes its queues with it. The second
//! ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::say;

/// Whether the user has had enough.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system gives no thread or no signals.
    pub(super) fn listen() -> Result<Self> {
        let interrupt = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no signals")?;
        let told = interrupt.clone();
        thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            runtime.block_on(async {
                if tokio::signal::ctrl_c().await.is_ok() {
                    told.0.store(true, Ordering::Relaxed);
                    say("interrupted: this is what was measured so far (once more: stop at once, and leave queues and started brokers behind)");
                }
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(INTERRUPTED);
                }
            });
        })?;
        Ok(interrupt)
    }

    /// Whether it has come.
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What shells expect of a program that SIGINT has ended.
const INTERRUPTED: i32 = 130;
