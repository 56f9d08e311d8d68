//! `/api/bindings`, and the bindings of a queue or an exchange.
//!
//! A binding between two ends is named by its *properties key*: its binding key, encoded as in a query string, `~` when
//! that is empty, and with `~HASH` after it where there are arguments. The hash is ours; RabbitMQ's is of Erlang terms.

use super::exchanges::real_name;
use super::listing::Listing;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::{Api, Shared, values};
use amqp::Table;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::command::{BindingSpec, CatalogAsk, DestinationKind, VhostId};
use broker::topology::{BindingView, Topology};
use bytes::BytesMut;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

/// `GET /api/bindings`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, &listing, |_| true)
}

/// `GET /api/bindings/VHOST`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer(&api, &listing, |binding| binding.vhost == vhost)
}

/// `GET /api/exchanges/VHOST/NAME/bindings/source`
pub(super) async fn list_from(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let (vhost, name) = (api.vhost(&vhost)?, real_name(&name));
    answer(&api, &listing, |binding| binding.vhost == vhost && binding.source == name)
}

/// `GET /api/exchanges/VHOST/NAME/bindings/destination`
pub(super) async fn list_to_exchange(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    list_to(&api, &vhost, DestinationKind::Exchange, real_name(&name), &listing)
}

/// `GET /api/queues/VHOST/NAME/bindings`
pub(super) async fn list_to_queue(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    list_to(&api, &vhost, DestinationKind::Queue, &name, &listing)
}

fn list_to(
    api: &Api,
    vhost: &str,
    kind: DestinationKind,
    name: &str,
    listing: &Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(vhost)?;
    answer(api, listing, |binding| binding.vhost == vhost && binding.kind == kind && binding.destination == name)
}

fn answer(api: &Api, listing: &Listing, is_wanted: impl Fn(&BindingView<'_>) -> bool) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        topology.bindings().filter(is_wanted).map(|binding| describe(&topology, &binding)).collect()
    };
    listing.all(objects, &["vhost", "source", "destination_type", "destination", "routing_key", "properties_key"])
}

/// Both ends of a path `/api/bindings/VHOST/e/SOURCE/q/DESTINATION`.
#[derive(Debug)]
struct Ends {
    vhost: VhostId,
    source: String,
    kind: DestinationKind,
    destination: String,
}

impl Ends {
    fn find(api: &Api, vhost: &str, source: &str, kind: &str, destination: &str) -> Result<Self, Refusal> {
        let kind = match kind {
            "q" => DestinationKind::Queue,
            "e" => DestinationKind::Exchange,
            _ => return Err(Refusal::no_object()),
        };
        let destination = if kind == DestinationKind::Exchange { real_name(destination) } else { destination };
        let vhost = api.vhost(vhost)?;
        Ok(Self { vhost, source: real_name(source).to_owned(), kind, destination: destination.to_owned() })
    }

    fn are_of(&self, binding: &BindingView<'_>) -> bool {
        (binding.vhost, binding.kind) == (self.vhost, self.kind)
            && binding.source == self.source
            && binding.destination == self.destination
    }

    fn spec(&self, key: String, arguments: Table) -> BindingSpec {
        let (source, destination) = (self.source.clone(), self.destination.clone());
        BindingSpec { source, destination, kind: self.kind, key, arguments }
    }
}

/// `GET /api/bindings/VHOST/e/SOURCE/KIND/DESTINATION`
pub(super) async fn list_between(
    State(api): Shared,
    Path((vhost, source, kind, destination)): Path<(String, String, String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let ends = Ends::find(&api, &vhost, &source, &kind, &destination)?;
    answer(&api, &listing, |binding| ends.are_of(binding))
}

/// `POST /api/bindings/VHOST/e/SOURCE/KIND/DESTINATION`
pub(super) async fn bind(
    State(api): Shared,
    Path((vhost, source, kind, destination)): Path<(String, String, String, String)>,
    document: Document,
) -> Result<(StatusCode, [(header::HeaderName, String); 1]), Refusal> {
    let ends = Ends::find(&api, &vhost, &source, &kind, &destination)?;
    let (key, arguments) = (document.text("routing_key")?.to_owned(), document.table("arguments")?);
    let name = properties_key(&key, &arguments);
    let spec = ends.spec(key, arguments);
    succeeded(api.operator().ask(ends.vhost, CatalogAsk::Bind(spec)).await?)?;
    // Relative to the path that was asked for, as RabbitMQ gives it.
    let location = format!("{}/{}", encoded(&destination), encoded(&name).replace("%7E", "~"));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)]))
}

/// `GET /api/bindings/VHOST/e/SOURCE/KIND/DESTINATION/PROPERTIES_KEY`
pub(super) async fn show(
    State(api): Shared,
    Path((vhost, source, kind, destination, name)): Path<(String, String, String, String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let ends = Ends::find(&api, &vhost, &source, &kind, &destination)?;
    let topology = api.board.topology();
    let binding = named(&topology, &ends, &name)?;
    Ok(listing.one(describe(&topology, &binding)))
}

/// `DELETE /api/bindings/VHOST/e/SOURCE/KIND/DESTINATION/PROPERTIES_KEY`
pub(super) async fn unbind(
    State(api): Shared,
    Path((vhost, source, kind, destination, name)): Path<(String, String, String, String, String)>,
) -> Result<StatusCode, Refusal> {
    let ends = Ends::find(&api, &vhost, &source, &kind, &destination)?;
    let spec = {
        let topology = api.board.topology();
        let binding = named(&topology, &ends, &name)?;
        ends.spec(binding.key.to_owned(), binding.arguments.clone())
    };
    succeeded(api.operator().ask(ends.vhost, CatalogAsk::Unbind(spec)).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The binding of this properties key; clients that forget to encode it a second time, for the path, are understood.
fn named<'a>(topology: &'a Topology, ends: &Ends, name: &str) -> Result<BindingView<'a>, Refusal> {
    let between: Vec<_> = topology.bindings().filter(|binding| ends.are_of(binding)).collect();
    let exact = between.iter().find(|binding| properties_key(binding.key, binding.arguments) == name);
    let decoded = || between.iter().find(|binding| decoded(&properties_key(binding.key, binding.arguments)) == name);
    exact.or_else(decoded).copied().ok_or_else(Refusal::no_object)
}

fn describe(topology: &Topology, binding: &BindingView<'_>) -> Value {
    json!({
        "source": binding.source,
        "vhost": &**topology.vhost_name(binding.vhost),
        "destination": binding.destination,
        "destination_type": match binding.kind {
            DestinationKind::Queue => "queue",
            DestinationKind::Exchange => "exchange",
        },
        "routing_key": binding.key,
        "arguments": values::table_to_json(binding.arguments),
        "properties_key": properties_key(binding.key, binding.arguments),
    })
}

fn properties_key(key: &str, arguments: &Table) -> String {
    let key = encoded(key).replace("%20", "+");
    match (key.is_empty(), arguments.is_empty()) {
        (true, true) => "~".to_owned(),
        (_, true) => key,
        (_, false) => format!("{key}~{}", hash(arguments)),
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNSAFE).to_string()
}

/// A name for arguments that is the same in every run: the FNV-1a hash of their bytes, whatever their order.
fn hash(arguments: &Table) -> String {
    let mut entries: Vec<_> = arguments.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    let sorted: Table = entries.into_iter().map(|(key, value)| (key, value.clone())).collect();
    let mut bytes = BytesMut::new();
    sorted.encode(&mut bytes);
    let hash = bytes.iter().fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME));
    URL_SAFE_NO_PAD.encode(hash.to_be_bytes())
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Everything but letters, digits and `.-_`.
const UNSAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_without_arguments_is_called_by_its_key() {
        let none = Table::new();
        assert_eq!(properties_key("", &none), "~");
        assert_eq!(properties_key("a.b-c_d", &none), "a.b-c_d");
        assert_eq!(properties_key("ünï \"q\" \\ b", &none), "%C3%BCn%C3%AF+%22q%22+%5C+b");
        assert_eq!(properties_key("tab\tname~", &none), "tab%09name%7E");
    }

    #[test]
    fn arguments_add_a_hash_that_does_not_depend_on_their_order() {
        let one: Table = [("x", 1), ("y", 2)].into_iter().collect();
        let other: Table = [("y", 2), ("x", 1)].into_iter().collect();
        assert_eq!(properties_key("k", &one), properties_key("k", &other));
        assert!(properties_key("", &one).starts_with('~'));
        assert_ne!(properties_key("k", &one), properties_key("k", &[("x", 1)].into_iter().collect()));
    }
}
