//! The table of tracked flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use weir_common::abi::{Endpoint, EndpointKey, Flow, FlowKey, control};
use zerocopy::IntoBytes;

use super::adopt::{self, World};
use super::bpf::{Entries, Map};
use super::error::{During, Result};
use super::kernel::{KernelDatapath, plain};
use crate::model::Connection;
use crate::plan::Table;

/// The flow table, to be walked over beside everything else.
#[derive(Debug)]
pub struct FlowTable(Map);

impl FlowTable {
    /// A walk over all that is in the table, from its beginning.
    #[must_use]
    pub fn walk(&self) -> FlowWalk<'_> {
        FlowWalk(self.0.entries())
    }
}

/// A walk in steps, with as much time between them as its owner likes. An entry that is there all the time comes exactly once, also
/// if others come and go.
#[derive(Debug)]
pub struct FlowWalk<'t>(Entries<'t>);

impl FlowWalk<'_> {
    /// Most entries of a step, unless one bucket of the table has more.
    pub const STEP: u32 = Entries::CHUNK as u32;

    /// Calls `visit` with the next entries; `false` if there were none left.
    ///
    /// # Errors
    /// When the kernel does not give them.
    pub fn step(&mut self, mut visit: impl FnMut(FlowKey, Flow)) -> Result<bool> {
        loop {
            let Some((key, value)) = self.0.advance().during(|| READ)? else {
                return Ok(false);
            };
            visit(plain(key)?, plain(value)?);
            if self.0.is_at_pause() {
                return Ok(true);
            }
        }
    }
}

const READ: &str = "read table `flow`";

impl KernelDatapath {
    /// The flow table for others, see [`FlowTable`].
    pub fn flow_table(&self) -> Result<FlowTable> {
        let table = self.flow.duplicate();
        table
            .map(FlowTable)
            .during(|| "duplicate the descriptor of table `flow`")
    }

    /// Calls `visit` with every tracked flow. The table lives on meanwhile: a flow that comes or goes may be missed.
    pub fn for_each_flow(&self, mut visit: impl FnMut(FlowKey, Flow)) -> Result<()> {
        let mut entries = self.flow.entries();
        while let Some((key, value)) = entries.advance().during(|| READ)? {
            visit(plain(key)?, plain(value)?);
        }
        Ok(())
    }

    /// Forgets a flow if it has had no packet since `last_seen`; `false` when it has, or is not known.
    pub fn expire_flow(&self, key: &FlowKey, last_seen: u32) -> Result<bool> {
        let mut value = vec![0; self.flow.stride()];
        let found = self
            .flow
            .lookup(key.as_bytes(), &mut value)
            .during(|| "read an element of table `flow`")?;
        if !found || plain::<Flow>(&value)?.last_seen != last_seen {
            return Ok(false);
        }
        self.delete_flow(key)
    }

    /// Enters connections that netfilter tracks, so that they go on as they are: who opened them is known, and what netfilter
    /// translates stays netfilter's. Those that are known are left alone. `node`: the node's own addresses. Gives how many were entered.
    pub fn adopt(&self, connections: &[Connection], node: &BTreeSet<IpAddr>) -> Result<usize> {
        let mut pods = BTreeMap::new();
        for (key, value) in self.dump(Table::Endpoint)? {
            let (key, pod): (EndpointKey, Endpoint) = (plain(&key)?, plain(&value)?);
            if key.ifindex == 0 {
                pods.insert(key.address, pod);
            }
        }
        let world = World {
            pods: &pods,
            node,
            epoch: self.control.load(control::EPOCH) as u32,
            now: self.now(),
        };
        let mut entered = 0;
        for connection in connections {
            let mut new = 0;
            for (key, flow) in adopt::rows(connection, &world) {
                let inserted = self
                    .flow
                    .insert(key.as_bytes(), flow.as_bytes())
                    .during(|| "enter a connection of netfilter's into table `flow`")?;
                new += u64::from(inserted);
            }
            self.flows_entered.fetch_add(new, Ordering::Relaxed);
            entered += usize::from(new > 0);
        }
        Ok(entered)
    }

    /// Forgets a flow; `false` when it was not known.
    pub fn delete_flow(&self, key: &FlowKey) -> Result<bool> {
        self.flow
            .delete(key.as_bytes())
            .during(|| "delete an element of table `flow`")
    }

    /// Entries ever put into the table: by programs, and by this agent.
    #[must_use]
    pub fn flows_inserted(&self) -> u64 {
        self.control.load(control::FLOWS_INSERTED) + self.flows_entered.load(Ordering::Relaxed)
    }

    /// Most flows that can be tracked at once.
    #[must_use]
    pub const fn flow_capacity(&self) -> u32 {
        self.flow.shape().entries
    }
}
