//! The queues of one shard that a message goes to: mostly one, which then takes no memory of its own.

use std::ops::Deref;
use std::sync::Arc;
use store::QueueId;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub enum QueueIds {
    /// The only one.
    One(QueueId),
    /// Any number of them.
    Several(Arc<[QueueId]>),
}

impl QueueIds {
    /// Whether they are the same, as far as that can be told without looking at each.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(id), Self::One(other)) => id == other,
            (Self::Several(ids), Self::Several(others)) => Arc::ptr_eq(ids, others),
            _ => false,
        }
    }
}

impl Deref for QueueIds {
    type Target = [QueueId];

    fn deref(&self) -> &[QueueId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(ids) => ids,
        }
    }
}

impl From<QueueId> for QueueIds {
    fn from(id: QueueId) -> Self {
        Self::One(id)
    }
}

impl<const COUNT: usize> From<[QueueId; COUNT]> for QueueIds {
    fn from(ids: [QueueId; COUNT]) -> Self {
        ids.into_iter().collect()
    }
}

impl FromIterator<QueueId> for QueueIds {
    fn from_iter<I: IntoIterator<Item = QueueId>>(ids: I) -> Self {
        let mut ids = ids.into_iter();
        match (ids.next(), ids.next()) {
            (Some(only), None) => Self::One(only),
            (first, second) => Self::Several(first.into_iter().chain(second).chain(ids).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_kept_without_an_allocation_and_takes_no_more_room_than_a_reference() {
        assert_eq!(size_of::<QueueIds>(), size_of::<Arc<[QueueId]>>());
        for count in [0, 1, 2, 5] {
            let ids: Vec<QueueId> = (0..count).map(QueueId).collect();
            let kept: QueueIds = ids.iter().copied().collect();
            assert_eq!(*kept, *ids);
            assert_eq!(matches!(kept, QueueIds::One(_)), count == 1);
            assert!(kept.is_same(&kept.clone()));
        }
        assert!(!QueueIds::One(QueueId(1)).is_same(&QueueIds::One(QueueId(2))));
    }
}
