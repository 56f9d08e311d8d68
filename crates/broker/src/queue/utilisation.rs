//! Measures the share of time in which a queue could deliver a message at once.

/// A moving average over about [`WINDOW_MS`].
#[derive(Debug, Default)]
pub(crate) struct Utilisation {
    is_able: bool,
    since_ms: u64,
    able_ms: u64,
    total_ms: u64,
}

impl Utilisation {
    /// From now on a message could be delivered at once, or not.
    pub(crate) fn note(&mut self, is_able: bool, now_ms: u64) {
        if is_able != self.is_able {
            self.advance(now_ms);
            self.is_able = is_able;
        }
    }

    /// Between 0 and 1.
    pub(crate) fn share(&mut self, now_ms: u64) -> f64 {
        self.advance(now_ms);
        if self.total_ms == 0 {
            return f64::from(u8::from(self.is_able));
        }
        self.able_ms as f64 / self.total_ms as f64
    }

    /// Starts anew: the first consumer came.
    pub(crate) fn restart(&mut self, now_ms: u64) {
        *self = Self { since_ms: now_ms, ..Self::default() };
    }

    fn advance(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.since_ms);
        self.since_ms = now_ms;
        self.total_ms += passed;
        if self.is_able {
            self.able_ms += passed;
        }
        if self.total_ms > WINDOW_MS {
            self.able_ms = (u128::from(self.able_ms) * u128::from(WINDOW_MS / 2) / u128::from(self.total_ms)) as u64;
            self.total_ms = WINDOW_MS / 2;
        }
    }
}

const WINDOW_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_time_is_a_half() {
        let mut utilisation = Utilisation::default();
        for second in 0..20 {
            utilisation.note(second % 2 == 0, second * 1000);
        }
        let share = utilisation.share(20_000);
        assert!((0.4..0.6).contains(&share), "{share}");
    }
}
