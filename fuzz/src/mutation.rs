//! Small damage to bytes, and damage that knows frames.

use crate::random::Random;
use amqp::frame::{self, HEADER_BYTES};

/// Inputs grow no longer than this.
const BYTES_MAX: usize = 256 << 10;

/// Damages the bytes in a few places.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        if bytes.is_empty() {
            bytes.push(random.octet());
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.octet(),
            2 => bytes.truncate(at),
            3 => {
                let count = 1 + random.below(8);
                bytes.splice(at..at, random.octets(count));
            }
            4 => {
                bytes.drain(at..(at + 1 + random.below(8)).min(bytes.len()));
            }
            5 => overwrite(bytes, at, random),
            6 => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = random.below(bytes.len());
                let count = (1 + random.below(16)).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + count, at);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
}

/// Writes a number from the edge of its range, of 1, 2, 4 or 8 octets, over what is there.
fn overwrite(bytes: &mut [u8], at: usize, random: &mut Random) {
    let edge = random.edge();
    let octets = 1 << random.below(4);
    let number = if random.one_in(2) { (edge << (64 - 8 * octets)).to_be_bytes() } else { edge.to_le_bytes() };
    for (byte, new) in bytes[at..].iter_mut().zip(&number[..octets]) {
        *byte = *new;
    }
}

/// Moves, repeats, drops or damages whole frames; lengths stay right unless damage to them is the point. Bytes that
/// are no frames are damaged plainly.
pub(crate) fn damage_frames(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut frames = split(bytes);
    if frames.is_empty() || random.one_in(8) {
        return damage(bytes, random);
    }
    for _ in 0..1 + random.below(3) {
        if frames.is_empty() {
            break;
        }
        let at = random.below(frames.len());
        match random.below(7) {
            0 => drop(frames.remove(at)),
            1 => {
                let frame = frames[at].clone();
                frames.insert(random.below(frames.len() + 1), frame);
            }
            2 => {
                let other = random.below(frames.len());
                frames.swap(at, other);
            }
            3 => {
                let channel = [0, 1, 1, 2, 3, random.octet()][random.below(6)];
                if let Some(octet) = frames[at].get_mut(2) {
                    *octet = channel;
                }
            }
            4 => damage(&mut frames[at], random),
            _ => damage_payload(&mut frames[at], random),
        }
    }
    *bytes = frames.concat();
    bytes.truncate(BYTES_MAX);
}

/// Damages what lies within a frame, and makes its length right again.
fn damage_payload(bytes: &mut Vec<u8>, random: &mut Random) {
    let Some(rest) = bytes.get(HEADER_BYTES..bytes.len().saturating_sub(1)) else { return };
    let mut payload = rest.to_vec();
    damage(&mut payload, random);
    bytes.truncate(HEADER_BYTES);
    bytes[3..].copy_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(frame::END);
}

/// The protocol header, if there is one, and the frames, each with its overhead; the rest is one piece.
fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    if let Some((header, after)) = rest.split_at_checked(8).filter(|(header, _)| header.starts_with(b"AMQP")) {
        pieces.push(header.to_vec());
        rest = after;
    }
    while let Ok(Some((_, taken))) = frame::decode(rest, BYTES_MAX) {
        let (frame, after) = rest.split_at(taken);
        pieces.push(frame.to_vec());
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(rest.to_vec());
    }
    pieces
}
