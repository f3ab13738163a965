//! What the kernel can do, found out by trying: distributions backport, version numbers lie.

use std::io;

use weir_common::abi::Hook;

use super::attach;
use super::bpf::{Map, Shape, TestRun, map_type};
use super::error::{During as _, Error, Result};
use super::kernel::KernelDatapath;

/// Whether the kernel tells the node's own sockets.
pub const NETNS_COOKIE: &str = "netns_cookie";

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
    let mut features = vec![
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
    ];
    if let Some(sockets) = datapath.sockets() {
        features.extend([
            feature(
                NETNS_COOKIE,
                sockets.knows_node,
                "the node's own processes do not reach Services (Linux 5.14 can)",
            ),
            feature(
                "socket_error",
                sockets.chooses_error,
                "processes on the node get EPERM instead of ECONNREFUSED from a Service without endpoints",
            ),
        ]);
    }
    features
}

/// A kind of map that Weir cannot do without.
#[derive(Clone, Copy)]
pub(super) struct Requirement {
    feature: &'static str,
    since: &'static str,
    shape: Shape,
}

/// What the newest features that Weir needs everywhere look like; older ones come with them.
pub(super) const REQUIRED: [Requirement; 2] = [
    Requirement {
        feature: "a ring buffer for events",
        since: "5.8",
        shape: Shape {
            kind: map_type::RINGBUF,
            key: 0,
            value: 0,
            // A page, of any size that pages have.
            entries: 1 << 16,
            flags: 0,
        },
    },
    Requirement {
        feature: "arrays that grow inside a map of maps",
        since: "5.10",
        shape: Shape {
            kind: map_type::ARRAY,
            key: 4,
            value: 8,
            entries: 1,
            flags: Shape::INNER | Shape::MMAPABLE,
        },
    },
];

/// Fails with the first thing that the kernel cannot make.
pub(super) fn require(requirements: &[Requirement]) -> Result<()> {
    for requirement in requirements {
        let Requirement {
            feature,
            since,
            shape,
        } = *requirement;
        match Map::create("probe", shape, None) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Err(Error::MissingFeature { feature, since });
            }
            Err(error) => return Err(error).during(|| format!("try to make {feature}")),
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_a_needed_feature_is_told_from_one_with() {
        if !rustix::process::geteuid().is_root() {
            return println!("SKIP: making maps needs root");
        }
        require(&REQUIRED).expect("the kernel of a machine that runs tests");
        // A kind that no kernel has answers as a kind does that this kernel has not.
        let mut unknown = REQUIRED[0];
        unknown.shape.kind = u32::MAX;
        let error = require(&[unknown]).expect_err("no such kind").to_string();
        assert!(
            error.contains("a ring buffer for events, which came with Linux 5.8"),
            "{error}"
        );
    }
}
