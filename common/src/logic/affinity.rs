//! sessionAffinity ClientIP: a client's new connections go where its last one went.

use super::context::Services;
use crate::abi::{
    Affinity, AffinityKey, BACKEND_ACTIVE, DROP_EXTERNAL, DROP_INTERNAL, Frontend, IN_CLUSTER_SET,
    IN_LOCAL_SET,
};

/// Which of its Service port's sets a frontend's clients outside the cluster get, or those inside.
#[inline(always)]
pub(super) const fn set_for(frontend: &Frontend, external: bool) -> u16 {
    let local = if external {
        DROP_EXTERNAL
    } else {
        DROP_INTERNAL
    };
    if frontend.flags & local == 0 {
        IN_CLUSTER_SET
    } else {
        IN_LOCAL_SET
    }
}

/// Where the client's last connection went at `now` nanoseconds, if that was lately enough and the backend still takes new
/// connections from `set`: another address of the Service may have other endpoints.
#[inline(always)]
pub(super) fn remembered<M: Services>(
    maps: &M,
    key: &AffinityKey,
    set: u16,
    seconds: u32,
    now: u64,
) -> Option<Affinity> {
    let known = maps.affinity(key)?;
    // Another CPU may have noted a later time than ours.
    let idle = now.wrapping_sub(known.last) as i64;
    if idle > i64::from(seconds) * 1_000_000_000 {
        return None;
    }
    let state = maps.backend(known.slot.backend)?;
    let serves = state.fingerprint == known.slot.fingerprint
        && state.state == BACKEND_ACTIVE
        && state.sets & set != 0;
    serves.then_some(known)
}
