//! Classes: the sets of terms that addresses satisfy.

use rustc_hash::FxHashMap;

use super::ClassId;
use super::hash::content_hash;
use super::terms::Terms;

/// The classes in use, by small numbers that mean nothing outside of one compilation. The world's is always there.
pub(super) struct Classes {
    list: Vec<(ClassId, Vec<usize>)>,
    index: FxHashMap<Vec<usize>, usize>,
    by_term: Vec<Vec<usize>>,
}

impl Classes {
    pub(super) fn new(terms: &Terms) -> Self {
        Self {
            list: vec![(ClassId::WORLD, Vec::new())],
            index: FxHashMap::from_iter([(Vec::new(), 0)]),
            by_term: vec![Vec::new(); terms.len()],
        }
    }

    /// The class of a sorted set of terms.
    pub(super) fn intern(&mut self, set: Vec<usize>, terms: &Terms) -> ClassId {
        if let Some(&number) = self.index.get(&set) {
            return self.list[number].0;
        }
        let id = ClassId(content_hash("class", &terms.ids(&set)));
        let number = self.list.len();
        for term in &set {
            self.by_term[*term].push(number);
        }
        self.index.insert(set.clone(), number);
        self.list.push((id, set));
        id
    }

    /// The classes that satisfy any of the terms; every class for `None`.
    pub(super) fn satisfying(&self, any: Option<&[usize]>) -> Vec<usize> {
        let Some(terms) = any else {
            return (0..self.list.len()).collect();
        };
        let mut classes: Vec<usize> = terms
            .iter()
            .flat_map(|term| &self.by_term[*term])
            .copied()
            .collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// Content hash of a class.
    pub(super) fn id(&self, class: usize) -> ClassId {
        self.list[class].0
    }

    /// The terms of a class, sorted.
    pub(super) fn terms(&self, class: usize) -> &[usize] {
        &self.list[class].1
    }
}
