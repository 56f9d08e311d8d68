//! Names that the server makes up for a connection: nobody can guess the next one, and none comes twice.

/// A source of names, seeded by the host with bytes from the operating system's random source.
#[derive(Debug)]
pub(crate) struct Names {
    seed: [u64; 2],
    made: u64,
    secret: u128,
}

impl Names {
    pub(crate) fn new(entropy: [u8; 32]) -> Self {
        let words: Vec<u64> =
            entropy.chunks_exact(8).map(|word| word.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))).collect();
        Self { seed: [words[0], words[1]], made: 0, secret: join(words[2], words[3]) }
    }

    /// The prefix and 22 characters of the URL alphabet, as RabbitMQ's server-made names have.
    pub(crate) fn next(&mut self, prefix: &str) -> String {
        self.made += 1;
        let low = mix(self.seed[0] ^ self.made);
        prefix.to_owned() + &characters(join(mix(self.seed[1] ^ low), low))
    }

    /// A seed for choices that need not be hard to guess. It gives no name away.
    pub(crate) fn chance(&self) -> u64 {
        mix(self.seed[0] ^ self.seed[1])
    }

    /// What only those who were told it know; the names made do not give it away.
    pub(crate) fn secret(&self) -> String {
        characters(self.secret)
    }
}

fn join(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// 128 bits at six a character.
fn characters(bits: u128) -> String {
    (0..22).map(|at| char::from(ALPHABET[(bits >> (6 * at) & 63) as usize])).collect()
}

/// A full avalanche over 64 bits (two rounds of multiply and shift).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits ^ (bits >> 32)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_have_the_prefix_and_never_repeat() {
        let mut names = Names::new([7; 32]);
        let made: BTreeSet<_> = (0..10_000).map(|_| names.next("amq.gen-")).collect();
        assert_eq!(made.len(), 10_000);
        assert!(made.iter().all(|name| name.starts_with("amq.gen-") && name.len() == 30));
        assert_ne!(Names::new([8; 32]).next(""), Names::new([7; 32]).next(""));
    }
}
