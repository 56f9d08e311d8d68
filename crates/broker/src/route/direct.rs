//! Direct exchanges: a message goes where its routing key is the binding key.

use super::{Destination, Destinations, Routes};
use rustc_hash::FxHashMap;

#[derive(Debug, Default)]
pub(crate) struct Direct {
    keys: FxHashMap<Box<str>, Destinations>,
}

impl Direct {
    pub(crate) fn add(&mut self, key: &str, destination: Destination) {
        self.keys.entry(key.into()).or_default().add(destination);
    }

    pub(crate) fn remove(&mut self, key: &str, destination: Destination) {
        let destinations = self.keys.get_mut(key).expect("only what was added is removed");
        destinations.remove(destination);
        if destinations.is_empty() {
            self.keys.remove(key);
        }
    }

    pub(crate) fn route(&self, key: &str, into: &mut Routes) {
        if let Some(destinations) = self.keys.get(key) {
            destinations.emit(into);
        }
    }
}
