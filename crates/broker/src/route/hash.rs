//! Consistent-hash and modulus-hash exchanges: a hash decides which one of the bindings' ends gets a message.
//!
//! Ends are hashed by kind and name, and with a hash written down here: the same message goes to the same end whatever the
//! order of bindings, and after a restart.

use super::{Destination, Link, Reuse, Routable, Routes};
use crate::command::Fault;
use crate::settings::term;
use amqp::{Properties, ReplyCode, Table, Value};

/// Where each key has one end, and few keys change theirs with the bindings.
///
/// Of all ends the one with the highest score for the key wins (rendezvous hashing); scores are drawn so that an end
/// wins as often as its weight says. An end that comes or goes takes or leaves only what is its own share. A weight
/// costs no memory, however great; a route asks each binding.
#[derive(Debug, Default)]
pub(crate) struct Consistent {
    by: By,
    ends: Vec<(End, f64)>,
}

/// Where the hash, modulo the number of bindings' ends, is the end's place in the order of names.
#[derive(Debug, Default)]
pub(crate) struct Modulus {
    /// Sorted; an end stands here as often as bindings lead to it.
    ends: Vec<End>,
}

/// What of a message is hashed.
#[derive(Debug, Default)]
enum By {
    #[default]
    Key,
    Header(String),
    Property(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    name: Box<str>,
    destination: Destination,
}

impl End {
    fn of(link: &Link<'_>) -> Self {
        Self { name: link.name.into(), destination: link.destination }
    }

    /// A queue and an exchange of the same name are two ends.
    fn seed(&self) -> u64 {
        let kind = match self.destination {
            Destination::Queue(_) => 0,
            Destination::Exchange(_) => 1,
        };
        hash(kind, self.name.as_bytes())
    }

    fn emit(&self, into: &mut Routes) {
        match self.destination {
            Destination::Queue(queue) => into.queues.push(queue),
            Destination::Exchange(exchange) => into.pending.push(exchange),
        }
    }
}

/// Refuses arguments of a consistent-hash exchange that make no sense.
///
/// # Errors
/// 406, in the plugin's words where it has them.
pub(crate) fn check_arguments(arguments: &Table) -> Result<(), Fault> {
    for name in [HEADER, PROPERTY] {
        if let Some(value) = arguments.get(name).filter(|value| value.as_str().is_none()) {
            return Err(refused(format!("invalid type '{}' for arg '{name}'", value.type_word())));
        }
    }
    match (arguments.get(HEADER), arguments.get(PROPERTY).and_then(Value::as_str)) {
        (Some(_), Some(_)) => Err(refused("hash-header and hash-property are mutually exclusive".to_owned())),
        (None, Some(property)) if !PROPERTIES.contains(&property) => {
            Err(refused(format!("Unsupported property: {property}")))
        }
        _ => Ok(()),
    }
}

impl Consistent {
    pub(crate) fn configure(&mut self, arguments: &Table) {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).map(str::to_owned);
        self.by = text(HEADER).map(By::Header).or_else(|| text(PROPERTY).map(By::Property)).unwrap_or_default();
    }

    pub(crate) fn add(&mut self, link: &Link<'_>) -> Result<(), Fault> {
        self.ends.push((End::of(link), weight(link.key)?));
        Ok(())
    }

    pub(crate) fn remove(&mut self, link: &Link<'_>) {
        let gone = (End::of(link), weight(link.key).unwrap_or_default());
        let at = self.ends.iter().position(|end| *end == gone).expect("only what was added is removed");
        self.ends.swap_remove(at);
    }

    pub(crate) fn route(&self, message: &mut Routable<'_>, into: &mut Routes) {
        let key = match &self.by {
            By::Key => hash(0, message.keys.first().map_or(&[], |key| key.as_bytes())),
            By::Header(name) => match message.headers().get(name) {
                Some(Value::Str(octets) | Value::Bytes(octets)) => hash(0, octets),
                Some(value) => hash(0, term(value).as_bytes()),
                None => hash(0, &[]),
            },
            By::Property(name) => {
                if into.reuse == Reuse::SameNames {
                    into.reuse = Reuse::SameProperties;
                }
                let properties = message.properties.parsed();
                let of = |text: Option<&str>| hash(0, text.unwrap_or_default().as_bytes());
                match name.as_str() {
                    "message_id" => of(properties.as_ref().and_then(Properties::message_id)),
                    "correlation_id" => of(properties.as_ref().and_then(Properties::correlation_id)),
                    _ => of(properties.and_then(|found| found.timestamp()).map(|at| at.to_string()).as_deref()),
                }
            }
        };
        let scored = self.ends.iter().map(|(end, weight)| (score(mix(key ^ end.seed()), *weight), end));
        // The name decides between equals, so that the order of bindings never does.
        let best = scored.max_by(|(one, end), (other, than)| one.total_cmp(other).then_with(|| end.cmp(than)));
        if let Some((_, end)) = best {
            end.emit(into);
        }
    }
}

impl Modulus {
    pub(crate) fn add(&mut self, link: &Link<'_>) {
        let end = End::of(link);
        let at = self.ends.partition_point(|other| *other < end);
        self.ends.insert(at, end);
    }

    pub(crate) fn remove(&mut self, link: &Link<'_>) {
        let at = self.ends.binary_search(&End::of(link)).expect("only what was added is removed");
        self.ends.remove(at);
    }

    pub(crate) fn route(&self, message: &Routable<'_>, into: &mut Routes) {
        let key = hash(0, message.keys.first().map_or(&[], |key| key.as_bytes()));
        let at = key.checked_rem(self.ends.len() as u64).and_then(|at| usize::try_from(at).ok());
        if let Some(end) = at.and_then(|at| self.ends.get(at)) {
            end.emit(into);
        }
    }
}

/// The weight that a binding key stands for.
#[allow(clippy::cast_precision_loss, reason = "shares of weights beyond 2^53 are rounded")]
fn weight(key: &str) -> Result<f64, Fault> {
    match key.parse::<i64>() {
        Ok(weight) if weight >= 1 => Ok(weight as f64),
        Ok(_) => Err(refused("The binding key must be greater than 0".to_owned())),
        Err(_) => Err(refused(format!("The binding key must be an integer: <<\"{key}\">>"))),
    }
}

/// Draws from the exponential distribution of this rate, negated: the highest of many is each one's as its rate says.
#[allow(clippy::cast_precision_loss, reason = "53 bits are taken")]
fn score(random: u64, weight: f64) -> f64 {
    let unit = ((random >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    unit.ln() / weight
}

/// FNV-1a, mixed.
fn hash(seed: u64, octets: &[u8]) -> u64 {
    let step = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
    mix(octets.iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, step))
}

/// The finaliser of `SplitMix64`: each bit depends on each.
pub(crate) const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn refused(text: String) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, text)
}

const HEADER: &str = "hash-header";
const PROPERTY: &str = "hash-property";
const PROPERTIES: [&str; 3] = ["correlation_id", "message_id", "timestamp"];
