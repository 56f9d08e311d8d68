//! A page in Prometheus's text format.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::collections::HashSet;
use std::fmt::{Display, Write as _};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    names: HashSet<String>,
}

/// The numbers of one name.
#[derive(Debug)]
pub(super) struct Family<'a> {
    page: &'a mut String,
    name: &'a str,
}

/// Labels as they are written: made once for all numbers of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

impl Labels {
    pub(super) fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::new();
        for (name, value) in labels {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(name);
            text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    plain => text.push(plain),
                }
            }
            text.push('"');
        }
        if !text.is_empty() {
            text.push('}');
        }
        Self(text)
    }
}

impl Page {
    /// Begins a name; nothing if the page has it already.
    pub(super) fn begin<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Option<Family<'a>> {
        if !self.names.insert(name.to_owned()) {
            return None;
        }
        let _infallible = write!(self.text, "# TYPE {name} {kind}\n# HELP {name} {help}\n");
        Some(Family { page: &mut self.text, name })
    }

    /// A name with numbers, of which each has labels.
    pub(super) fn put<'a>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        numbers: impl IntoIterator<Item = (&'a Labels, f64)>,
    ) {
        let Some(mut family) = self.begin(name, kind, help) else { return };
        for (labels, number) in numbers {
            family.add("", labels, number);
        }
    }

    /// A name with one number, without labels.
    pub(super) fn put_one(&mut self, head: (&str, &str, &str), number: impl IntoNumber) {
        self.put(head, [(&Labels::default(), number.number())]);
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl Family<'_> {
    /// Adds a number under the name with that behind it.
    pub(super) fn add(&mut self, suffix: &str, labels: &Labels, number: impl Display) {
        self.page.push_str(self.name);
        self.page.push_str(suffix);
        self.page.push_str(&labels.0);
        let _infallible = writeln!(self.page, " {number}");
    }
}

/// What becomes a number of Prometheus's, which are all floating.
pub(super) trait IntoNumber {
    fn number(self) -> f64;
}

impl IntoNumber for u64 {
    #[expect(clippy::cast_precision_loss, reason = "a number of 2^53 may be off by one")]
    fn number(self) -> f64 {
        self as f64
    }
}

impl IntoNumber for usize {
    fn number(self) -> f64 {
        (self as u64).number()
    }
}

impl IntoNumber for bool {
    fn number(self) -> f64 {
        u64::from(self).number()
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        let labels = Labels::new([("queue", "a\"b\\c\nd"), ("vhost", "/")]);
        page.put(("x", "gauge", "An x"), [(&labels, 1.0)]);
        assert_eq!(page.text(), "# TYPE x gauge\n# HELP x An x\nx{queue=\"a\\\"b\\\\c\\nd\",vhost=\"/\"} 1\n");
    }

    #[test]
    fn a_name_is_on_a_page_once() {
        let mut page = Page::default();
        page.put_one(("x", "gauge", "An x"), 1_u64);
        page.put_one(("x", "gauge", "An x"), 2_u64);
        assert_eq!(page.text(), "# TYPE x gauge\n# HELP x An x\nx 1\n");
    }
}
