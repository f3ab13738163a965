//! Classes: the sets of terms that addresses satisfy.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use imbl::OrdMap;
use rustc_hash::FxHashMap;

use super::terms::Terms;
use crate::compile::ClassId;
use crate::compile::hash::content_hash;

/// The classes in use. The world's is always there.
#[derive(Debug)]
pub(super) struct Classes {
    known: BTreeMap<ClassId, Arc<[usize]>>,
    index: FxHashMap<Arc<[usize]>, ClassId>,
    by_term: FxHashMap<usize, BTreeSet<ClassId>>,
    come: BTreeSet<ClassId>,
    gone: BTreeSet<ClassId>,
}

/// What has come and gone.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) come: BTreeSet<ClassId>,
    pub(super) gone: BTreeSet<ClassId>,
}

impl Default for Classes {
    fn default() -> Self {
        let nothing: Arc<[usize]> = Arc::default();
        Self {
            known: BTreeMap::from([(ClassId::WORLD, Arc::clone(&nothing))]),
            index: FxHashMap::from_iter([(nothing, ClassId::WORLD)]),
            by_term: FxHashMap::default(),
            come: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }
}

impl Classes {
    /// The class of a sorted set of terms, for one more user; `users` counts them.
    pub(super) fn take(
        &mut self,
        set: &[usize],
        terms: &Terms,
        users: &mut OrdMap<ClassId, usize>,
    ) -> ClassId {
        let id = match self.index.get(set) {
            Some(id) => *id,
            None => self.add(set.into(), terms),
        };
        if id != ClassId::WORLD {
            let count = users.get(&id).copied().unwrap_or_default();
            users.insert(id, count + 1);
            self.gone.remove(&id);
        }
        id
    }

    fn add(&mut self, set: Arc<[usize]>, terms: &Terms) -> ClassId {
        let id = ClassId(content_hash("class", &terms.ids(&set)));
        for term in &*set {
            self.by_term.entry(*term).or_default().insert(id);
        }
        self.index.insert(Arc::clone(&set), id);
        self.known.insert(id, set);
        self.come.insert(id);
        id
    }

    /// One user less.
    pub(super) fn release(&mut self, id: ClassId, users: &mut OrdMap<ClassId, usize>) {
        match users.get(&id).copied() {
            None => {}
            Some(1) => {
                users.remove(&id);
                self.gone.insert(id);
            }
            Some(count) => {
                users.insert(id, count - 1);
            }
        }
    }

    /// Forgets the classes that nobody uses, and tells of all that differs since the last time.
    pub(super) fn settle(&mut self) -> News {
        let mut news = News {
            come: mem::take(&mut self.come),
            gone: mem::take(&mut self.gone),
        };
        for id in &news.gone {
            let Some(set) = self.known.remove(id) else {
                continue;
            };
            for term in &*set {
                if let Some(classes) = self.by_term.get_mut(term) {
                    classes.remove(id);
                    if classes.is_empty() {
                        self.by_term.remove(term);
                    }
                }
            }
            self.index.remove(&set);
        }
        // Those that came and went meanwhile nobody has heard of.
        let both: Vec<ClassId> = news.come.intersection(&news.gone).copied().collect();
        for id in both {
            news.come.remove(&id);
            news.gone.remove(&id);
        }
        news
    }

    /// The classes that satisfy any of the terms.
    pub(super) fn satisfying(&self, any: impl Iterator<Item = usize>) -> BTreeSet<ClassId> {
        any.filter_map(|term| self.by_term.get(&term))
            .flatten()
            .copied()
            .collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeSet<ClassId> {
        self.known.keys().copied().collect()
    }

    /// The terms of a class, sorted.
    pub(super) fn terms(&self, class: ClassId) -> &[usize] {
        &self.known[&class]
    }
}
