//! What a query string makes of an answer: which objects, in which order, which page of them, and which fields.

use super::refusal::Refusal;
use super::rights::View;
use super::rows::Row;
use axum::Json;
use axum::extract::{FromRequestParts, Query};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use regex_lite::RegexBuilder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;

/// The query strings that every list takes. Rates are over the last seconds whatever is asked for; with the ages and
/// increments that RabbitMQ knows, `/api/overview` tells how the counters stood before.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Listing {
    columns: Option<String>,
    sort: Option<String>,
    sort_reverse: Option<String>,
    page: Option<String>,
    page_size: Option<String>,
    name: Option<String>,
    use_regex: Option<String>,
    disable_stats: Option<String>,
    enable_queue_totals: Option<String>,
    msg_rates_age: Option<String>,
    msg_rates_incr: Option<String>,
    lengths_age: Option<String>,
    lengths_incr: Option<String>,
    /// What of the list may be seen at all.
    #[serde(skip)]
    view: View,
}

impl<S: Send + Sync> FromRequestParts<S> for Listing {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<Self>::from_request_parts(parts, state).await;
        let view = parts.extensions.get::<View>().cloned().unwrap_or_default();
        query.map(|Query(listing)| Self { view, ..listing }).map_err(|error| Refusal::bad_request(error.body_text()))
    }
}

/// Which names are listed.
type NameFilter = Box<dyn Fn(&str) -> bool>;

impl Listing {
    /// Only what was declared is asked for.
    pub(super) fn disables_stats(&self) -> bool {
        is_true(self.disable_stats.as_deref())
    }

    /// A field of this name, or of what is in it, is told or sorted by.
    pub(super) fn shows(&self, field: &str) -> bool {
        let is_of = |path: &str| path.split('.').next() == Some(field);
        let is_told = self.columns.as_deref().is_none_or(|columns| columns.split(',').any(is_of));
        is_told || self.sort.as_deref().is_some_and(is_of)
    }

    /// Message counts are asked for nevertheless.
    pub(super) fn enables_queue_totals(&self) -> bool {
        is_true(self.enable_queue_totals.as_deref())
    }

    /// How far back message counters are to be told, and in which steps, in milliseconds.
    pub(super) fn message_rates(&self) -> Option<(u64, u64)> {
        history(&self.msg_rates_age, &self.msg_rates_incr)
    }

    /// The same of the lengths of queues.
    pub(super) fn lengths(&self) -> Option<(u64, u64)> {
        history(&self.lengths_age, &self.lengths_incr)
    }

    /// The answer for one object.
    pub(super) fn one(&self, object: Value) -> Json<Value> {
        Json(match self.columns() {
            Some(columns) => cut(object, &columns),
            None => object,
        })
    }

    /// The answer for a list, ordered by these fields unless the query says otherwise.
    pub(super) fn all(&self, mut objects: Vec<Value>, order: &[&str]) -> Result<Json<Value>, Refusal> {
        let page = self.page()?;
        objects.retain(|object| self.view.shows(object));
        let total = objects.len();
        if page.is_some() {
            self.keep_named(&mut objects)?;
        }
        match &self.sort {
            Some(field) => objects.sort_by(|a, b| compare(dotted(a, field), dotted(b, field))),
            None => objects.sort_by(|a, b| by_fields(a, b, order)),
        }
        if is_true(self.sort_reverse.as_deref()) {
            objects.reverse();
        }
        let Some((page, page_size)) = page else {
            return Ok(Json(self.cut_all(objects)));
        };
        let filtered = objects.len();
        let from = first_of(page, page_size, filtered)?;
        let items: Vec<_> = objects.into_iter().skip(from).take(page_size).collect();
        Ok(Json(json!({
            "filtered_count": filtered,
            "item_count": items.len(),
            "items": self.cut_all(items),
            "page": page,
            "page_count": filtered.div_ceil(page_size),
            "page_size": page_size,
            "total_count": total,
        })))
    }

    /// The same for things that are in their usual order already, of which only those are told that are asked for. Of each is
    /// told its vhost and name.
    pub(super) fn rows<T>(
        &self,
        mut things: Vec<T>,
        name: impl Fn(&T) -> (&str, &str),
        describe: impl Fn(&T) -> Row,
    ) -> Result<Response, Refusal> {
        things.retain(|thing| self.view.shows_vhost(name(thing).0));
        let page = self.page()?;
        let total = things.len();
        if page.is_some()
            && let Some(is_wanted) = self.name_filter()?
        {
            things.retain(|thing| is_wanted(name(thing).1));
        }
        if let Some(field) = &self.sort {
            // All are asked for the field, but only the page is told whole.
            let columns = [field.split('.').collect::<Vec<_>>()];
            let key = |thing: &T| describe(thing).cut(&columns).into_value();
            let mut keyed: Vec<_> = things.into_iter().map(|thing| (key(&thing), thing)).collect();
            keyed.sort_by(|(a, _), (b, _)| compare(dotted(a, field), dotted(b, field)));
            things = keyed.into_iter().map(|(_, thing)| thing).collect();
        }
        if is_true(self.sort_reverse.as_deref()) {
            things.reverse();
        }
        let filtered = things.len();
        let (from, size) = match page {
            Some((page, page_size)) => (first_of(page, page_size, filtered)?, page_size),
            None => (0, filtered),
        };
        let columns = self.columns();
        let described = things.iter().skip(from).take(size).map(|thing| match &columns {
            Some(columns) => describe(thing).cut(columns),
            None => describe(thing),
        });
        let mut text = Vec::new();
        let mut count = 0;
        let write = || -> serde_json::Result<()> {
            text.push(b'[');
            for row in described {
                if count > 0 {
                    text.push(b',');
                }
                count += 1;
                serde_json::to_writer(&mut text, &row)?;
            }
            text.push(b']');
            Ok(())
        };
        // Nothing in a row can fail to be written to memory.
        write().map_err(|error| Refusal::bad_request(error.to_string()))?;
        if let Some((page, page_size)) = page {
            let mut paged = format!(r#"{{"filtered_count":{filtered},"item_count":{count},"items":"#).into_bytes();
            paged.append(&mut text);
            let pages = filtered.div_ceil(page_size);
            let rest =
                format!(r#","page":{page},"page_count":{pages},"page_size":{page_size},"total_count":{total}}}"#);
            paged.extend_from_slice(rest.as_bytes());
            text = paged;
        }
        Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
    }

    /// The page and its size, when pages are asked for.
    fn page(&self) -> Result<Option<(usize, usize)>, Refusal> {
        let number = |text: &Option<String>| text.as_deref().map(str::parse::<usize>).transpose();
        let invalid = |_| Refusal::bad_request("Pagination parameters are invalid");
        let Some(page) = number(&self.page).map_err(invalid)? else { return Ok(None) };
        let page_size = number(&self.page_size).map_err(invalid)?.unwrap_or(PAGE_SIZE);
        if page == 0 || page_size == 0 || page_size > PAGE_SIZE_MAX {
            let reason = format!("Invalid pagination parameters: page number {page}, page size {page_size}");
            return Err(Refusal::bad("invalid_pagination_parameters", reason));
        }
        Ok(Some((page, page_size)))
    }

    /// Keeps what the query names: by a part of the name, or a regular expression, in any case.
    fn keep_named(&self, objects: &mut Vec<Value>) -> Result<(), Refusal> {
        if let Some(is_wanted) = self.name_filter()? {
            objects.retain(|object| is_wanted(name_of(object)));
        }
        Ok(())
    }

    fn name_filter(&self) -> Result<Option<NameFilter>, Refusal> {
        let Some(wanted) = self.name.as_deref().filter(|name| !name.is_empty()) else { return Ok(None) };
        if is_true(self.use_regex.as_deref()) {
            let pattern = RegexBuilder::new(wanted).case_insensitive(true).build();
            let pattern = pattern.map_err(|_| Refusal::bad_request("Pagination parameters are invalid"))?;
            return Ok(Some(Box::new(move |name| pattern.is_match(name))));
        }
        let wanted = wanted.to_lowercase();
        Ok(Some(Box::new(move |name| name.to_lowercase().contains(&wanted))))
    }

    fn cut_all(&self, objects: Vec<Value>) -> Value {
        match self.columns() {
            Some(columns) => objects.into_iter().map(|object| cut(object, &columns)).collect(),
            None => objects.into(),
        }
    }

    fn columns(&self) -> Option<Vec<Vec<&str>>> {
        let columns = self.columns.as_deref()?;
        Some(columns.split(',').filter(|column| !column.is_empty()).map(|column| column.split('.').collect()).collect())
    }
}

/// From seconds; nothing where they are no numbers.
fn history(age: &Option<String>, step: &Option<String>) -> Option<(u64, u64)> {
    let ms = |text: &Option<String>| text.as_deref()?.parse::<u32>().ok().map(|seconds| u64::from(seconds) * 1000);
    Some((ms(age)?, ms(step)?))
}

/// Where a page begins in a list of that length.
fn first_of(page: usize, page_size: usize, length: usize) -> Result<usize, Refusal> {
    let from = (page - 1).saturating_mul(page_size);
    if from > length {
        let reason = format!("Page out of range, page: {page} page size: {page_size}, len: {length}");
        return Err(Refusal::bad("page_out_of_range", reason));
    }
    Ok(from)
}

fn is_true(value: Option<&str>) -> bool {
    value == Some("true")
}

fn name_of(object: &Value) -> &str {
    object.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The fields of an object, and of objects within, that are columns.
pub(super) fn cut<C: AsRef<[S]>, S: AsRef<str>>(value: Value, columns: &[C]) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|item| cut(item, columns)).collect(),
        Value::Object(object) => {
            let mut kept = Map::new();
            for (key, value) in object {
                let below: Vec<&[S]> = columns
                    .iter()
                    .filter_map(|column| column.as_ref().split_first())
                    .filter(|(first, _)| first.as_ref() == key)
                    .map(|(_, rest)| rest)
                    .collect();
                if below.iter().any(|rest| rest.is_empty()) {
                    kept.insert(key, value);
                } else if !below.is_empty() {
                    kept.insert(key, cut(value, &below));
                }
            }
            kept.into()
        }
        plain => plain,
    }
}

fn dotted<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    field.split('.').try_fold(object, |value, key| value.get(key))
}

fn by_fields(a: &Value, b: &Value, fields: &[&str]) -> Ordering {
    fields
        .iter()
        .map(|field| compare(dotted(a, field), dotted(b, field)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Numbers come before truth values, those before texts; what is missing counts as 0.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let zero = Value::from(0);
    let (a, b) = (a.unwrap_or(&zero), b.unwrap_or(&zero));
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::Null => 1,
        Value::Bool(_) => 2,
        Value::Object(_) => 3,
        Value::Array(_) => 4,
        Value::String(_) => 5,
    }
}

const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(query: &str) -> Listing {
        Query::try_from_uri(&format!("/?{query}").parse().unwrap()).unwrap().0
    }

    fn queues() -> Vec<Value> {
        vec![
            json!({"name": "b", "vhost": "/", "messages": 10, "stats": {"rate": 1.0, "age": 1}}),
            json!({"name": "Ab", "vhost": "/", "messages": 2}),
            json!({"name": "c", "vhost": "/", "stats": {"rate": 3.0}}),
        ]
    }

    fn answer(query: &str) -> Value {
        listing(query).all(queues(), &["vhost", "name"]).unwrap().0
    }

    fn names(query: &str) -> Vec<String> {
        let answer = answer(query);
        let items = answer.get("items").unwrap_or(&answer).as_array().unwrap().clone();
        items.iter().map(|item| name_of(item).to_owned()).collect()
    }

    #[test]
    fn lists_are_sorted_by_the_default_or_the_query() {
        assert_eq!(names(""), ["Ab", "b", "c"]);
        assert_eq!(names("sort=messages"), ["c", "Ab", "b"]);
        assert_eq!(names("sort=messages&sort_reverse=true"), ["b", "Ab", "c"]);
        assert_eq!(names("sort=stats.rate"), ["Ab", "b", "c"]);
    }

    #[test]
    fn columns_cut_objects_and_objects_within() {
        assert_eq!(answer("columns=name,stats.rate")[1], json!({"name": "b", "stats": {"rate": 1.0}}));
        assert_eq!(answer("columns=stats")[1], json!({"stats": {"rate": 1.0, "age": 1}}));
        assert_eq!(listing("columns=name").one(json!({"name": "q", "x": 1})).0, json!({"name": "q"}));
    }

    #[test]
    fn pages_say_how_many_there_are() {
        let page = answer("page=2&page_size=2&columns=name");
        let expected = json!({
            "filtered_count": 3, "item_count": 1, "items": [{"name": "c"}],
            "page": 2, "page_count": 2, "page_size": 2, "total_count": 3,
        });
        assert_eq!(page, expected);
        assert_eq!(answer("page=1&name=zz")["page_count"], 0);
    }

    #[test]
    fn names_are_found_by_part_or_pattern_in_any_case() {
        assert_eq!(names("page=1&name=B"), ["Ab", "b"]);
        assert_eq!(names("page=1&name=%5Eb&use_regex=true"), ["b"]);
        assert_eq!(names("page=1&use_regex=true&pagination=false&name=%5Ea&page_size=100"), ["Ab"]);
        assert_eq!(names("name=b"), ["Ab", "b", "c"]);
    }

    #[test]
    fn pages_that_cannot_be_are_refused() {
        for query in ["page=x", "page=0", "page=1&page_size=501", "page=9", "page=1&name=(&use_regex=true"] {
            assert!(listing(query).all(queues(), &["name"]).is_err(), "{query}");
        }
    }
}
