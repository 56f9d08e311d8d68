//! The one source of chance: xoshiro256++ (Blackman and Vigna), seeded by splitmix64. Small, fast, and the same on
//! every machine and with every release of any library, so that a seed found once can be run for ever.

/// A stream of numbers that its seed decides.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed(state)
        }))
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `bound`, which is not 0. (The bias of a remainder is far below what matters here.)
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// A position in a sequence of `length`, which is not 0.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// A number up to `max` whose magnitude is what is drawn: small ones are as likely as large ones.
    pub fn scaled(&mut self, max: u64) -> u64 {
        let bits = u64::from(64 - max.leading_zeros());
        let drawn = self.below(bits + 1);
        let below = if drawn >= 64 { u64::MAX } else { 1 << drawn };
        self.below(below).min(max)
    }

    /// The position of one of the weights, each as likely as it is heavy. Their sum is not 0.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = self.below(sum);
        for (at, weight) in weights.iter().enumerate() {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return at,
            }
        }
        unreachable!("what is below the sum falls on one of its parts")
    }
}

fn mixed(state: u64) -> u64 {
    let once = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let twice = (once ^ (once >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    twice ^ (twice >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_bounds_and_reach_them() {
        let mut random = Random::new(7);
        let mut seen = [0; 4];
        for _ in 0..1000 {
            seen[random.weighted(&[1, 0, 2, 5])] += 1;
            assert!((3..=9).contains(&random.between(3, 9)));
            assert!(random.scaled(100) <= 100);
        }
        assert_eq!(seen[1], 0);
        assert!(seen[0] > 50 && seen[2] > seen[0] && seen[3] > seen[2], "{seen:?}");
    }

    #[test]
    fn a_seed_is_a_stream() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.draw(), random.draw(), random.draw()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
