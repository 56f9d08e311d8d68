//! SipHash-2-4 with 128 bits of result (Aumasson and Bernstein, 2012): who does not know the key can neither find two
//! inputs of one hash nor tell the hash of any.

/// The hash of these octets under this key.
pub(crate) fn siphash(key: [u64; 2], octets: &[u8]) -> u128 {
    let mut state = State([
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d ^ LONG,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ]);
    let (words, rest) = octets.as_chunks::<8>();
    for word in words {
        state.absorb(u64::from_le_bytes(*word));
    }
    // The last word has the length, modulo 256, in its highest byte.
    let last = rest.iter().rev().fold(0, |last, octet| last << 8 | u64::from(*octet));
    state.absorb(last | (octets.len() as u64) << 56);
    state.0[2] ^= LONG;
    state.rounds(4);
    let low = state.fold();
    state.0[1] ^= 0xdd;
    state.rounds(4);
    u128::from(low) | u128::from(state.fold()) << 64
}

struct State([u64; 4]);

impl State {
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.rounds(2);
        self.0[0] ^= word;
    }

    fn rounds(&mut self, count: u32) {
        let [a, b, c, d] = &mut self.0;
        for _ in 0..count {
            *a = a.wrapping_add(*b);
            *b = b.rotate_left(13) ^ *a;
            *a = a.rotate_left(32);
            *c = c.wrapping_add(*d);
            *d = d.rotate_left(16) ^ *c;
            *a = a.wrapping_add(*d);
            *d = d.rotate_left(21) ^ *a;
            *c = c.wrapping_add(*b);
            *b = b.rotate_left(17) ^ *c;
            *c = c.rotate_left(32);
        }
    }

    fn fold(&self) -> u64 {
        self.0.iter().fold(0, |all, word| all ^ word)
    }
}

/// What tells the long result from the short one.
const LONG: u64 = 0xee;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_function_of_the_reference_vectors() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let expected = [
            (0, [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93]),
            (1, [0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45]),
            (15, [0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11, 0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3, 0xd9]),
        ];
        for (length, expected) in expected {
            let octets: Vec<u8> = (0..length).collect();
            assert_eq!(siphash(key, &octets).to_le_bytes(), expected, "{length}");
        }
    }
}
