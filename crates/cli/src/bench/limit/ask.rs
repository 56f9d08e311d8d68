//! A client that waits for each answer before it asks again, and a thread that does nothing but answer: what a round trip
//! costs this machine, with and without a sync of the disk in it. Most of it is the waking of who waits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::super::figures::rate;
use super::super::interrupt::Interrupt;
use super::super::outcome::{Outcome, Unit};
use super::disk::Scratch;

/// What is asked over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    /// Something, on one connection.
    Ask,
    /// Something that is answered after a sync.
    AskSynced,
    /// A connection is opened for it, and closed.
    Connect,
}

impl Talk {
    pub(super) const ALL: [Self; 3] = [Self::Ask, Self::AskSynced, Self::Connect];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ask => "questions, each answered",
            Self::AskSynced => "questions, each answered after a sync",
            Self::Connect => "connections, each with five questions",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Ask => "asks_per_s",
            Self::AskSynced => "synced_asks_per_s",
            Self::Connect => "connects_per_s",
        }
    }
}

/// How often a second one client gets an answer.
pub(super) fn measure(
    talk: Talk,
    dir: &Path,
    seconds: u32,
    interrupt: &Interrupt,
    outcome: &mut Outcome,
) -> Result<()> {
    let disk = (talk == Talk::AskSynced).then(|| Scratch::new(dir)).transpose()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let to = listener.local_addr()?;
    let (done, time) = thread::scope(|scope| {
        let answering = scope.spawn(move || answer_all(&listener, disk.as_ref()));
        let asked = ask_all(talk, to, Duration::from_secs(seconds.into()), interrupt);
        // One that says nothing ends it.
        drop(TcpStream::connect(to)?);
        answering.join().map_err(|_| anyhow!("a thread of the load died"))??;
        asked
    })?;
    outcome.add(talk.key(), talk.name(), rate(done, time), Unit::PerSecond);
    if talk != Talk::Connect {
        let key = format!("{}_pairs_per_s", talk.key().trim_end_matches("s_per_s"));
        outcome.add(&key, "  pairs of them", rate(done, time) / 2.0, Unit::PerSecond);
    }
    Ok(())
}

fn ask_all(talk: Talk, to: SocketAddr, end: Duration, interrupt: &Interrupt) -> Result<(u64, Duration)> {
    let mut kept = (talk != Talk::Connect).then(|| connect(to)).transpose()?;
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < end && !interrupt.has_come() {
        match &mut kept {
            Some(stream) => ask(stream)?,
            None => {
                let mut stream = connect(to)?;
                for _ in 0..QUESTIONS {
                    ask(&mut stream)?;
                }
            }
        }
        done += 1;
    }
    Ok((done, began.elapsed()))
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&QUESTION)?;
    Ok(stream.read_exact(&mut [0; QUESTION.len()])?)
}

/// Answers one client after the other, until one comes that says nothing.
fn answer_all(listener: &TcpListener, disk: Option<&Scratch>) -> Result<()> {
    let (mut question, mut at) = ([0; QUESTION.len()], 0);
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut answered = 0;
        while stream.read_exact(&mut question).is_ok() {
            if let Some(disk) = disk {
                at = disk.write_and_sync(at)?;
            }
            stream.write_all(&question)?;
            answered += 1;
        }
        if answered == 0 {
            return Ok(());
        }
    }
}

/// About as long as the methods that open and close channels.
const QUESTION: [u8; 16] = [0x5A; 16];

/// How often a client that opens a connection and a channel, and closes them, waits for an answer.
const QUESTIONS: u32 = 5;
