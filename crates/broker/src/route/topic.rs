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
