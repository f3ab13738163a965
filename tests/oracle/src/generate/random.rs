//! Chance that can be replayed.

use std::collections::BTreeMap;

use super::LABELS;

/// The generator SplitMix64 (Steele, Lea, Flood 2014): tiny, the same on every machine, and as good
/// a start from seed 1 as from any other.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which must not be 0. The bias of the remainder is far below notice.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A number from `first` to `last`, both included.
    pub(super) fn between(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `items`, which must not be empty.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A list as users write it: absent, empty, or with up to `most` items.
    pub(super) fn list<T>(
        &mut self,
        most: usize,
        mut item: impl FnMut(&mut Self) -> T,
    ) -> Option<Vec<T>> {
        match self.below(8) {
            0 => None,
            1 => Some(Vec::new()),
            _ => {
                let length = self.between(1, most);
                Some((0..length).map(|_| item(self)).collect())
            }
        }
    }

    /// Labels of an object: often some, sometimes an empty map, sometimes none at all.
    pub(super) fn labels(&mut self) -> Option<BTreeMap<String, String>> {
        if self.one_in(8) {
            return None;
        }
        let mut labels = BTreeMap::new();
        for (key, values) in LABELS {
            if !self.one_in(3) {
                labels.insert(key.to_owned(), (*self.pick(&values)).to_owned());
            }
        }
        Some(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_published_algorithm() {
        let mut random = Random::new(1234567);
        let expected = [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ];
        assert_eq!(
            std::array::from_fn::<u64, 5, _>(|_| random.next()),
            expected
        );
    }
}
