//! Content hashes: equal content has equal ids in every process, so that tables of two processes can be compared.

use std::hash::Hasher;

use serde::Serialize;
use siphasher::sip128::{Hasher128, SipHasher13};

/// 128-bit hash of a value's JSON form, never 0 (0 stands for "nothing" in both id types). JSON, and not `std::hash::Hash`,
/// because the latter may change with the compiler.
pub(super) fn content_hash(kind: &str, content: &impl Serialize) -> u128 {
    let bytes = serde_json::to_vec(&(kind, content)).expect("plain data has a JSON form");
    let mut hasher = SipHasher13::new_with_keys(0x7765_6972, 2);
    hasher.write(&bytes);
    hasher.finish128().as_u128().max(1)
}
