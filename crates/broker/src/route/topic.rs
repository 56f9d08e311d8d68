//! Topic exchanges: binding keys are patterns of words between dots, where `*` stands for one word and `#` for any
//! number of them.
//!
//! The patterns form a trie. A message walks it word by word with the set of all nodes that fit what was read so far,
//! each at most once, so that no pattern, however many `#` it has, costs more than its nodes for each word. The usual
//! message meets as many nodes as it has words, however many bindings there are.

use super::{Destination, Destinations, Routes};
use rustc_hash::FxHashMap;

#[derive(Debug)]
pub(crate) struct Topic {
    /// [`ROOT`], which stands for no words read, is always there.
    nodes: Vec<Node>,
    vacant: Vec<NodeId>,
}

/// The patterns that begin with the same words.
#[derive(Debug, Default)]
struct Node {
    words: FxHashMap<Box<str>, NodeId>,
    /// What follows `*`.
    one: Option<NodeId>,
    /// What follows `#`. Such a node has none itself: `#.#` is kept as `#`.
    many: Option<NodeId>,
    /// It follows a `#`, so that it still fits after any further word.
    is_many: bool,
    /// Where patterns lead that end here.
    destinations: Destinations,
}

type NodeId = u32;

const ROOT: NodeId = 0;

/// The nodes that fit before and after a word: room that is reused.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    before: Vec<NodeId>,
    after: Vec<NodeId>,
}

impl Default for Topic {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], vacant: Vec::new() }
    }
}

impl Topic {
    pub(crate) fn add(&mut self, pattern: &str, destination: Destination) {
        let mut at = ROOT;
        for word in pattern_words(pattern) {
            at = match self.node(at).next(word) {
                Some(next) => next,
                None => self.grow(at, word),
            };
        }
        self.node_mut(at).destinations.add(destination);
    }

    pub(crate) fn remove(&mut self, pattern: &str, destination: Destination) {
        let mut path = vec![(ROOT, "")];
        let mut at = ROOT;
        for word in pattern_words(pattern) {
            at = self.node(at).next(word).expect("only what was added is removed");
            path.push((at, word));
        }
        self.node_mut(at).destinations.remove(destination);
        while let Some((bare, word)) = path.pop()
            && bare != ROOT
            && self.node(bare).is_bare()
        {
            let parent = path.last().map_or(ROOT, |(parent, _)| *parent);
            self.node_mut(parent).cut(word);
            *self.node_mut(bare) = Node::default();
            self.vacant.push(bare);
        }
    }

    pub(crate) fn route(&self, key: &str, into: &mut Routes) {
        let mut walk = std::mem::take(&mut into.walk);
        walk.before.clear();
        self.enter(ROOT, &mut walk.before);
        for word in words(key) {
            walk.after.clear();
            let mut repeated = false;
            for &id in &walk.before {
                let node = self.node(id);
                if node.is_many {
                    walk.after.push(id);
                    repeated = true;
                }
                for next in [node.words.get(word).copied(), node.one].into_iter().flatten() {
                    self.enter(next, &mut walk.after);
                }
            }
            if repeated {
                walk.after.sort_unstable();
                walk.after.dedup();
            }
            std::mem::swap(&mut walk.before, &mut walk.after);
            if walk.before.is_empty() {
                break;
            }
        }
        for &id in &walk.before {
            self.node(id).destinations.emit(into);
        }
        into.walk = walk;
    }

    /// The node fits, and so does what follows a `#` after it, which may stand for no word at all.
    fn enter(&self, id: NodeId, fitting: &mut Vec<NodeId>) {
        fitting.push(id);
        fitting.extend(self.node(id).many);
    }

    fn grow(&mut self, parent: NodeId, word: &str) -> NodeId {
        let child = self.vacant.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            NodeId::try_from(self.nodes.len() - 1).expect("four billion nodes do not fit in memory")
        });
        self.node_mut(child).is_many = word == MANY;
        let parent = self.node_mut(parent);
        match word {
            ONE => parent.one = Some(child),
            MANY => parent.many = Some(child),
            _ => {
                parent.words.insert(word.into(), child);
            }
        }
        child
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }
}

impl Node {
    fn next(&self, word: &str) -> Option<NodeId> {
        match word {
            ONE => self.one,
            MANY => self.many,
            _ => self.words.get(word).copied(),
        }
    }

    fn cut(&mut self, word: &str) {
        match word {
            ONE => self.one = None,
            MANY => self.many = None,
            _ => {
                self.words.remove(word);
            }
        }
    }

    fn is_bare(&self) -> bool {
        self.words.is_empty() && self.one.is_none() && self.many.is_none() && self.destinations.is_empty()
    }
}

/// The words of a key: none in an empty key, though words themselves may be empty (RabbitMQ).
fn words(key: &str) -> impl Iterator<Item = &str> {
    (!key.is_empty()).then(|| key.split('.')).into_iter().flatten()
}

/// The words of a pattern, less each `#` that follows another and adds nothing to it.
fn pattern_words(pattern: &str) -> impl Iterator<Item = &str> {
    let mut after_many = false;
    words(pattern).filter(move |word| {
        let repeats = after_many && *word == MANY;
        after_many = *word == MANY;
        !repeats
    })
}

const ONE: &str = "*";
const MANY: &str = "#";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{QueueId, QueueRef, ShardId};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn queue(id: u64) -> QueueRef {
        QueueRef { id: QueueId(id), shard: ShardId(0) }
    }

    fn routed(topic: &Topic, key: &str) -> Vec<u64> {
        let mut routes = Routes::default();
        topic.route(key, &mut routes);
        let mut ids: Vec<u64> = routes.queues.iter().map(|queue| queue.id.0).collect();
        ids.sort_unstable();
        ids
    }

    /// The rule as it is told: `#` for any number of words, `*` for one.
    fn fits(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            ([MANY, rest @ ..], _) => (0..=key.len()).any(|skipped| fits(rest, &key[skipped..])),
            ([word, pattern @ ..], [first, key @ ..]) => (*word == ONE || word == first) && fits(pattern, key),
            _ => false,
        }
    }

    #[test]
    fn words_wildcards_and_empty_words_match_as_rabbitmq_matches_them() {
        for (pattern, matching, other) in [
            ("a.b", &["a.b"][..], &["a", "a.b.c", "A.b", "a.", ""][..]),
            ("*", &["a"], &["", "a.b", "."]),
            ("#", &["", "a", "a.b.c", ".", "..."], &[]),
            ("*.b", &["a.b", ".b"], &["b", "a.a.b"]),
            ("#.b", &["b", "a.b", "a.a.b"], &["b.a", ""]),
            ("a.#", &["a", "a.b", "a.b.c", "a."], &["b.a", "", "ab"]),
            ("a.#.b", &["a.b", "a.x.b", "a.b.b", "a.x.y.b"], &["a", "b", "a.b.c"]),
            ("#.*", &["a", "a.b", "."], &[""]),
            ("*.#", &["a", "a.b"], &[""]),
            ("", &[""], &["a", "."]),
            ("a..b", &["a..b"], &["a.b"]),
            ("#.#", &["", "a", "a.b"], &[]),
        ] {
            let mut topic = Topic::default();
            topic.add(pattern, Destination::Queue(queue(1)));
            for key in matching {
                assert_eq!(routed(&topic, key), [1], "{pattern:?} matches {key:?}");
            }
            for key in other {
                assert_eq!(routed(&topic, key), [0_u64; 0], "{pattern:?} does not match {key:?}");
            }
        }
    }

    #[test]
    fn many_wildcards_cost_no_more_than_the_nodes_of_the_pattern_for_each_word() {
        let mut topic = Topic::default();
        let pattern = vec!["#.a"; 63].join(".");
        topic.add(&pattern, Destination::Queue(queue(1)));
        topic.add(&vec!["#.*"; 63].join("."), Destination::Queue(queue(2)));
        let mut routes = Routes::default();
        let key = format!("{}.b", vec!["a"; 126].join("."));
        topic.route(&key, &mut routes);
        assert_eq!(routes.queues, [queue(2)]);
        let room = routes.walk.before.capacity().max(routes.walk.after.capacity());
        assert!(room <= 4 * topic.nodes.len(), "{room} nodes held for {} that there are", topic.nodes.len());
    }

    #[test]
    fn nodes_are_freed_with_the_last_pattern_that_needs_them() {
        let mut topic = Topic::default();
        let patterns = ["a.b.c", "a.b", "a.*.c", "a.#.c", "#.#.x", "#.x", ""];
        for pattern in patterns {
            topic.add(pattern, Destination::Queue(queue(1)));
        }
        for pattern in patterns {
            topic.remove(pattern, Destination::Queue(queue(1)));
        }
        assert_eq!(topic.vacant.len() + 1, topic.nodes.len());
        assert!(topic.node(ROOT).is_bare());
    }

    #[test]
    fn a_hundred_thousand_patterns_are_as_quick_as_a_few() {
        let mut topic = Topic::default();
        let pattern = |n: u64| format!("job.{}.{}.#", n % 1000, n);
        for n in 0..100_000 {
            topic.add(&pattern(n), Destination::Queue(queue(n)));
        }
        let mut routes = Routes::default();
        for n in 0..100_000 {
            routes.queues.clear();
            topic.route(&format!("job.{}.{n}.done", n % 1000), &mut routes);
            assert_eq!(routes.queues, [queue(n)]);
        }
        for n in 0..100_000 {
            topic.remove(&pattern(n), Destination::Queue(queue(n)));
        }
        assert!(topic.node(ROOT).is_bare());
    }

    fn key() -> impl Strategy<Value = String> {
        vec(prop_oneof!["a", "b", ""], 0..5).prop_map(|words| words.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        vec(prop_oneof!["a", "b", "", r"\*", "#"], 0..6).prop_map(|words| words.join("."))
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_the_rule(
            steps in vec((pattern(), 0..4_u64, any::<bool>()), 0..40),
            keys in vec(key(), 1..12),
        ) {
            let mut topic = Topic::default();
            let mut bound: Vec<(String, u64)> = Vec::new();
            for (pattern, id, remove) in steps {
                let at = bound.iter().position(|other| *other == (pattern.clone(), id));
                match at {
                    Some(at) if remove => {
                        topic.remove(&pattern, Destination::Queue(queue(id)));
                        bound.swap_remove(at);
                    }
                    _ => {
                        topic.add(&pattern, Destination::Queue(queue(id)));
                        bound.push((pattern, id));
                    }
                }
            }
            for key in keys {
                let split: Vec<&str> = words(&key).collect();
                let mut expected: Vec<u64> = bound
                    .iter()
                    .filter(|(pattern, _)| fits(&words(pattern).collect::<Vec<_>>(), &split))
                    .map(|(_, id)| *id)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(routed(&topic, &key), expected, "key {:?}", key);
            }
        }
    }
}
