//! Fanout exchanges: a message goes wherever a binding leads.

use super::{Destination, Destinations, Routes};

#[derive(Debug, Default)]
pub(crate) struct Fanout {
    destinations: Destinations,
}

impl Fanout {
    pub(crate) fn add(&mut self, destination: Destination) {
        self.destinations.add(destination);
    }

    pub(crate) fn remove(&mut self, destination: Destination) {
        self.destinations.remove(destination);
    }

    pub(crate) fn route(&self, into: &mut Routes) {
        self.destinations.emit(into);
    }
}
