//! Reading tables and properties. The first bit of an input says which.

use super::Target;
use crate::content;
use crate::mutation::damage;
use crate::random::Random;
use amqp::{Properties, PropertyList, Table};
use bytes::BytesMut;

// An entry of three bytes becomes a name and a value of tens.
pub(super) const TARGET: Target = Target { name: "table", run, generate, mutate: damage, memory: (64 << 10, 128) };

fn generate(random: &mut Random) -> Vec<u8> {
    let mut out = BytesMut::new();
    let is_table = random.one_in(2);
    out.extend_from_slice(&[u8::from(is_table)]);
    if is_table {
        content::table(random, 6).encode(&mut out);
    } else {
        content::properties(random).encode(&mut out);
    }
    out.to_vec()
}

fn run(input: &[u8]) {
    let Some((which, input)) = input.split_first() else { return };
    if which & 1 == 1 { table(input) } else { properties(input) }
}

fn table(input: &[u8]) {
    if let Ok((table, taken)) = Table::decode(input) {
        assert!(taken <= input.len(), "no more than there is");
        let once = written(&table);
        let (again, whole) = Table::decode(&once).expect("what we write can be read");
        assert_eq!((whole, &written(&again)), (once.len(), &once), "it changes from one reading to the next");
        for (name, value) in table.iter() {
            assert!(name.len() <= 255 && !value.type_word().is_empty(), "{name}");
            let _ = (value.as_i64(), value.as_str(), value.as_bool());
        }
    }
    let _ = Table::decode_body(input);
}

fn properties(input: &[u8]) {
    let Ok(properties) = Properties::parse(input) else { return };
    let list = PropertyList::from(&properties);
    assert_eq!(properties.has_headers(), list.headers.is_some(), "headers are there or not");
    let mut once = BytesMut::new();
    list.encode(&mut once);
    let read = Properties::parse(&once).expect("what we write can be read");
    let mut again = BytesMut::new();
    PropertyList::from(&read).encode(&mut again);
    assert_eq!(once, again, "they change from one reading to the next");
    let _ = (properties.content_type(), properties.expiration(), properties.timestamp(), properties.reply_to());
}

fn written(table: &Table) -> BytesMut {
    let mut out = BytesMut::new();
    table.encode(&mut out);
    out
}
