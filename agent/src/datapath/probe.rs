//! What the kernel can do, found out by trying: distributions backport, version numbers lie.

use std::io;

use weir_common::abi::Hook;

use super::attach;
use super::bpf::{Map, Shape, TestRun, map_type};
use super::kernel::KernelDatapath;

/// One thing tried.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Feature {
    /// What was tried.
    pub name: &'static str,
    /// Whether it worked.
    pub present: bool,
    /// What Weir does without it.
    pub otherwise: &'static str,
}

/// Tries what Weir makes use of and can do without.
#[must_use]
pub fn probe(datapath: &KernelDatapath) -> Vec<Feature> {
    let feature = |name, present, otherwise| Feature {
        name,
        present,
        otherwise,
    };
    vec![
        feature(
            "tcx",
            attach::has_tcx(datapath.live()),
            "programs are attached as filters under clsact",
        ),
        feature(
            "hash_batch",
            has_batch(map_type::HASH, 4),
            "elements are written one by one",
        ),
        feature(
            "array_batch",
            has_batch(map_type::ARRAY, 4),
            "elements are written one by one",
        ),
        feature(
            "trie_batch",
            has_batch(map_type::LPM_TRIE, 8),
            "elements are written one by one",
        ),
        feature(
            "test_run",
            datapath
                .dry_run(Hook::FromPod, &TestRun::new(&[0; 64], 0, 0))
                .is_ok(),
            "verdicts are explained from the tables, not by the programs themselves",
        ),
    ]
}

/// Whether a map of this kind takes a batch.
fn has_batch(kind: u32, key: u32) -> bool {
    let try_it = || -> io::Result<()> {
        let shape = Shape {
            kind,
            key,
            value: 4,
            entries: 1,
            flags: if kind == map_type::ARRAY {
                0
            } else {
                Shape::NO_PREALLOC
            },
        };
        let map = Map::create("probe", shape, None)?;
        let key = vec![0; key as usize];
        map.update_batch(&key, &[1; 4], 1)
            .map_err(|(_, error)| error)
    };
    try_it().is_ok()
}
