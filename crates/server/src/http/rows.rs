//! Objects of long lists: fields in a row, written as they are. A map for each of ten thousand queues, with a key of its
//! own for each of seventy fields, takes longer than all the rest of an answer.

use super::listing;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// An object.
#[derive(Clone, Debug, Default)]
pub(super) struct Row(Vec<(&'static str, Cell)>);

/// The value of a field.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Number(u64),
    Word(&'static str),
    Text(String),
    /// `{"rate": …}`
    Rate(f64),
    Row(Row),
    Json(Value),
}

impl Row {
    pub(super) fn put(&mut self, name: &'static str, cell: impl Into<Cell>) {
        self.0.push((name, cell.into()));
    }

    /// Gives a field that is there another value.
    pub(super) fn replace(&mut self, name: &'static str, cell: impl Into<Cell>) {
        if let Some((_, there)) = self.0.iter_mut().find(|(other, _)| *other == name) {
            *there = cell.into();
        }
    }

    /// The fields that are columns, and those of objects within.
    pub(super) fn cut<C: AsRef<[S]>, S: AsRef<str>>(self, columns: &[C]) -> Self {
        let mut kept = Self::default();
        for (name, cell) in self.0 {
            let below: Vec<&[S]> = columns
                .iter()
                .filter_map(|column| column.as_ref().split_first())
                .filter(|(first, _)| first.as_ref() == name)
                .map(|(_, rest)| rest)
                .collect();
            if below.iter().any(|rest| rest.is_empty()) {
                kept.0.push((name, cell));
            } else if !below.is_empty() {
                let cell = match cell {
                    Cell::Row(row) => Cell::Row(row.cut(&below)),
                    Cell::Rate(rate) => Cell::Json(listing::cut(json!({"rate": rate}), &below)),
                    Cell::Json(value) => Cell::Json(listing::cut(value, &below)),
                    plain => plain,
                };
                kept.0.push((name, cell));
            }
        }
        kept
    }

    pub(super) fn into_value(self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, cell)| map.serialize_entry(name, cell))?;
        map.end()
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Word(word) => serializer.serialize_str(word),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Rate(rate) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("rate", rate)?;
                map.end()
            }
            Self::Row(row) => row.serialize(serializer),
            Self::Json(value) => value.serialize(serializer),
        }
    }
}

impl From<bool> for Cell {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<&'static str> for Cell {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl From<Row> for Cell {
    fn from(row: Row) -> Self {
        Self::Row(row)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(maybe: Option<T>) -> Self {
        maybe.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_object_that_a_map_would_be() {
        let mut inner = Row::default();
        inner.put("publish", 1_u64);
        inner.put("publish_details", Cell::Rate(0.5));
        let mut row = Row::default();
        row.put("name", "q");
        row.put("policy", None::<String>);
        row.put("stats", inner);
        row.put("arguments", json!({"x": [1], "y": 2}));
        row.replace("name", "r".to_owned());
        let whole = json!({
            "name": "r", "policy": null, "stats": {"publish": 1, "publish_details": {"rate": 0.5}},
            "arguments": {"x": [1], "y": 2},
        });
        assert_eq!(row.clone().into_value(), whole);
        let columns = [vec!["stats", "publish_details", "rate"], vec!["arguments", "y"], vec!["policy"]];
        let cut = json!({"policy": null, "stats": {"publish_details": {"rate": 0.5}}, "arguments": {"y": 2}});
        assert_eq!(row.cut(&columns).into_value(), cut);
    }
}
