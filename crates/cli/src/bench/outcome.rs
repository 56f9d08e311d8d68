//! What came of a load, in one form for all loads: named numbers with units, as a table, as JSON, and set against
//! another broker's.

use serde_json::{Map, Value, json};

use super::figures::{median, megabytes, milliseconds, per_second, table};

/// What a number counts. Values are kept in the unit that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    /// Processor time per message.
    CpuUs,
    /// Processor time per operation that is no message.
    OperationUs,
    Ns,
    Seconds,
    Bytes,
    /// Bytes, of which there are few.
    Kilobytes,
    BytesPerSecond,
    Count,
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// What programs call it, unit included.
    pub(super) key: String,
    /// What people call it.
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: Unit,
}

/// All numbers of one run.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// What the broker says it is.
    pub(super) broker: String,
    /// Where it was, if that was not where the command line says.
    pub(super) at: Option<String>,
    pub(super) figures: Vec<Figure>,
    /// What only programs read: counts, each second's rates.
    pub(super) detail: Map<String, Value>,
}

impl Unit {
    const ALL: [Self; 9] = [
        Self::PerSecond,
        Self::CpuUs,
        Self::OperationUs,
        Self::Ns,
        Self::Seconds,
        Self::Bytes,
        Self::Kilobytes,
        Self::BytesPerSecond,
        Self::Count,
    ];

    /// What programs call it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::PerSecond => "per_second",
            Self::CpuUs => "cpu_us_per_message",
            Self::OperationUs => "cpu_us_per_operation",
            Self::Ns => "ns",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Kilobytes => "few_bytes",
            Self::BytesPerSecond => "bytes_per_second",
            Self::Count => "count",
        }
    }

    /// The unit that programs call so; a plain number if there is none.
    pub(super) fn of_key(key: &str) -> Self {
        Self::ALL.into_iter().find(|unit| unit.key() == key).unwrap_or(Self::Count)
    }

    /// Whether more of it is better.
    pub(super) fn is_more_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::BytesPerSecond | Self::Count)
    }

    /// A value for people.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => per_second(value),
            Self::CpuUs => format!("{value:.2} µs/message"),
            Self::OperationUs => format!("{value:.1} µs each"),
            Self::Ns => milliseconds(value as u64),
            Self::Seconds if value < 1.0 => format!("{value:.3} s"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Kilobytes => format!("{:.1} kB", value / 1e3),
            Self::Bytes => megabytes(value as u64),
            Self::BytesPerSecond => format!("{:.0} MB/s", value / 1e6),
            Self::Count => crate::serve::thousands(value as u64),
        }
    }
}

impl Outcome {
    /// Nothing measured yet of this broker.
    pub(super) fn new(broker: impl Into<String>) -> Self {
        Self { broker: broker.into(), ..Self::default() }
    }

    /// Adds a number.
    pub(super) fn add(&mut self, key: &str, name: &str, value: f64, unit: Unit) {
        self.figures.push(Figure { key: key.to_owned(), name: name.to_owned(), value, unit });
    }

    /// Adds a number if it was measured.
    pub(super) fn add_known(&mut self, key: &str, name: &str, value: Option<f64>, unit: Unit) {
        if let Some(value) = value {
            self.add(key, name, value, unit);
        }
    }

    /// The number with this key, if it was measured.
    pub(super) fn value(&self, key: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.key == key).map(|figure| figure.value)
    }

    /// As lines for people.
    pub(super) fn table(&self) -> String {
        let cells = |figure: &Figure| vec![figure.name.clone(), figure.unit.show(figure.value)];
        table(&self.figures.iter().map(cells).collect::<Vec<_>>())
    }

    /// The numbers by their keys.
    pub(super) fn json(&self) -> Value {
        let figures: Map<_, _> = self.figures.iter().map(|it| (it.key.clone(), it.value.into())).collect();
        let mut object = Map::new();
        object.insert("broker".to_owned(), self.broker.clone().into());
        object.insert("figures".to_owned(), figures.into());
        object.extend(self.detail.clone());
        object.into()
    }

    /// The units of the numbers, by their keys.
    pub(super) fn units(&self) -> Value {
        self.figures.iter().map(|it| (it.key.clone(), Value::from(it.unit.key()))).collect::<Map<_, _>>().into()
    }

    /// What people call the numbers, by their keys.
    pub(super) fn names(&self) -> Value {
        self.figures.iter().map(|it| (it.key.clone(), Value::from(it.name.trim()))).collect::<Map<_, _>>().into()
    }

    /// The median of each number over runs of the same load; what no run has is left out.
    pub(super) fn median(runs: &[Self]) -> Self {
        let Some(first) = runs.first() else { return Self::default() };
        // A run that was cut short may lack the last ones.
        let longest = runs.iter().max_by_key(|run| run.figures.len()).unwrap_or(first);
        let of_all = |figure: &Figure| {
            let values: Vec<f64> = runs.iter().filter_map(|run| run.value(&figure.key)).collect();
            Figure { value: median(&values), ..figure.clone() }
        };
        let figures = longest.figures.iter().map(of_all).collect();
        Self { broker: first.broker.clone(), at: first.at.clone(), figures, ..Self::default() }
    }
}

/// Two brokers' medians and the ratio of the first to the second, for people.
pub(super) fn comparison(first: &Outcome, second: &Outcome) -> String {
    let mut rows = vec![["", "A", "B", "A / B"].map(str::to_owned).to_vec()];
    for figure in &first.figures {
        let Some(other) = second.value(&figure.key) else { continue };
        let ratio = ratio(figure.value, other).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        rows.push(vec![figure.name.clone(), figure.unit.show(figure.value), figure.unit.show(other), ratio]);
    }
    table(&rows)
}

/// The same for programs.
pub(super) fn ratios(first: &Outcome, second: &Outcome) -> Value {
    let ratios = first
        .figures
        .iter()
        .filter_map(|figure| Some((figure.key.clone(), json!(ratio(figure.value, second.value(&figure.key)?)?))));
    Value::Object(ratios.collect())
}

fn ratio(one: f64, other: f64) -> Option<f64> {
    (other != 0.0).then(|| one / other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rate: f64, cpu: Option<f64>) -> Outcome {
        let mut outcome = Outcome::new("a broker");
        outcome.add("published_per_s", "published", rate, Unit::PerSecond);
        outcome.add_known("broker_cpu_us", "broker CPU", cpu, Unit::CpuUs);
        outcome
    }

    #[test]
    fn units_are_found_by_their_keys() {
        assert!(Unit::ALL.into_iter().all(|unit| Unit::of_key(unit.key()) == unit));
        assert_eq!(Unit::of_key("furlongs"), Unit::Count);
    }

    #[test]
    fn a_median_is_of_each_number_on_its_own() {
        let runs = [outcome(3.0, Some(0.5)), outcome(1.0, Some(0.7)), outcome(2.0, None)];
        let median = Outcome::median(&runs);
        assert_eq!((median.value("published_per_s"), median.value("broker_cpu_us")), (Some(2.0), Some(0.6)));
        assert_eq!(Outcome::median(&[]).figures, []);
    }

    #[test]
    fn a_comparison_shows_both_and_their_ratio() {
        let (first, second) = (outcome(3000.0, Some(0.5)), outcome(1000.0, None));
        let expected = "                 A        B  A / B\npublished  3,000/s  1,000/s   3.00\n";
        assert_eq!(comparison(&first, &second), expected);
        assert_eq!(ratios(&first, &second), json!({"published_per_s": 3.0}));
        assert_eq!(ratios(&first, &outcome(0.0, None)), json!({}));
    }
}
