//! A [`Backlog`] that most queues never have: it takes memory of its own from its first change on.

use super::backlog::Backlog;
use std::ops::{Deref, DerefMut};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Far(Option<Box<Backlog>>);

impl Far {
    /// Whether it has no messages. Quicker to tell than by the backlog.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|backlog| backlog.is_empty())
    }

    /// The backlog itself.
    pub(crate) fn into_backlog(self) -> Backlog {
        self.0.map_or_else(Backlog::default, |backlog| *backlog)
    }
}

impl Deref for Far {
    type Target = Backlog;

    fn deref(&self) -> &Backlog {
        self.0.as_deref().unwrap_or(&EMPTY)
    }
}

impl DerefMut for Far {
    fn deref_mut(&mut self) -> &mut Backlog {
        self.0.get_or_insert_default()
    }
}

impl From<Backlog> for Far {
    fn from(backlog: Backlog) -> Self {
        Self(Some(Box::new(backlog)))
    }
}

static EMPTY: Backlog = Backlog::new();
