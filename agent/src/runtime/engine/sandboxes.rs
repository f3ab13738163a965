//! Pods whose networks a CNI plugin announces: isolated before their first instruction.

use std::collections::BTreeSet;
use std::time::Instant;

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};
use tokio::sync::oneshot;
use weir_common::abi::EndpointKey;

use super::super::history;
use super::{Engine, local};
use crate::cni::{Answer, Store};
use crate::model::{Attachment, Change, PodDevice, Sandbox};

/// What a CNI plugin says.
#[derive(Debug)]
pub(in crate::runtime) enum Said {
    /// A pod is about to start.
    Added(Sandbox),
    /// Is it isolated?
    Checked(Attachment),
    /// A pod's network is going.
    Deleted(Attachment),
    /// All others of this network are gone.
    Remaining(String, BTreeSet<Attachment>),
}

/// The same, with where the answer goes.
#[derive(Debug)]
pub(in crate::runtime) struct Ask {
    pub(in crate::runtime) said: Said,
    pub(in crate::runtime) answer: oneshot::Sender<Answer>,
}

impl Engine {
    /// Takes in what CNI plugins say; whether there is anything to do for it.
    pub(in crate::runtime) fn hear(&mut self, asks: Vec<Ask>) -> bool {
        let mut any = false;
        for Ask { said, answer } in asks {
            any |= match said {
                Said::Added(sandbox) => {
                    self.asked.push((sandbox.attachment.clone(), answer));
                    let pod = sandbox.pod.clone();
                    let change = self.store.announce(&mut self.state, sandbox);
                    if change != Change::default() {
                        let sandbox = || history::other("Sandbox", pod);
                        self.passage.asked(sandbox, Instant::now());
                    }
                    self.note(change);
                    // Also for one that is known: somebody waits for it to be in force.
                    true
                }
                Said::Checked(attachment) => {
                    self.asked.push((attachment, answer));
                    true
                }
                Said::Deleted(attachment) => {
                    let any = self.retire(|sandbox| sandbox.attachment == attachment);
                    reply(answer, Answer::Done);
                    any
                }
                Said::Remaining(network, valid) => {
                    let any = self.retire(|sandbox| {
                        sandbox.network == network && !valid.contains(&sandbox.attachment)
                    });
                    reply(answer, Answer::Done);
                    any
                }
            };
        }
        self.local = local(&self.state);
        any
    }

    /// Forgets sandboxes, here and for the next agent.
    fn retire(&mut self, is_gone: impl Fn(&Sandbox) -> bool) -> bool {
        let change = self.store.retire(&mut self.state, is_gone);
        self.note(change)
    }

    /// Forgets sandboxes whose devices went without a word of the plugin.
    pub(super) fn forget_lost(&mut self) {
        if self.retire(is_lost) {
            self.local = local(&self.state);
        }
    }

    /// Answers those whose sandbox is in force by now, or unknown.
    pub(super) fn answer(&mut self) {
        for (attachment, answer) in std::mem::take(&mut self.asked) {
            if answer.is_closed() {
                continue;
            }
            match self.is_in_force(&attachment) {
                None => reply(answer, Answer::Unknown),
                Some(true) => reply(answer, Answer::Done),
                Some(false) => self.asked.push((attachment, answer)),
            }
        }
    }

    /// Whether the programs are on a sandbox's device, and the maps hold its pod's policies as they are now; `None` if nobody
    /// knows the sandbox.
    fn is_in_force(&self, attachment: &Attachment) -> Option<bool> {
        let snapshot = self.state.snapshot();
        let sandbox = snapshot.sandboxes.get(attachment)?;
        if self.change != Change::default() {
            return Some(false);
        }
        let attached = self.shared.published().attached;
        let held = self.planner.held().map(|held| &held.policies.endpoints);
        let wanted = &self.tables.policies.endpoints;
        Some(sandbox.addresses.iter().all(|address| {
            let key = EndpointKey::address((*address).into());
            let device = snapshot.devices.devices.get(address);
            let entry = wanted.get(&key);
            entry.is_some()
                && held.and_then(|held| held.get(&key)) == entry
                && device.is_some_and(|device| attached.contains(&device.ifindex))
        }))
    }
}

/// Sandboxes of an earlier agent, without those that are gone.
pub(super) fn restore(store: &Store) -> Vec<Sandbox> {
    let mut sandboxes = store.load().unwrap_or_else(|error| {
        tracing::warn!("cannot read the sandboxes of an earlier agent: {error}");
        Vec::new()
    });
    sandboxes.retain(|sandbox| {
        let lost = is_lost(sandbox);
        if lost && let Err(error) = store.remove(&sandbox.attachment) {
            tracing::warn!(pod = %sandbox.pod, "cannot forget a sandbox: {error}");
        }
        !lost
    });
    sandboxes
}

/// Whether a sandbox had a device that is gone.
fn is_lost(sandbox: &Sandbox) -> bool {
    let is_there = |device: &PodDevice| {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None);
        let name = socket.and_then(|socket| index_to_name(&socket, device.ifindex));
        name.is_ok_and(|name| name == device.name)
    };
    sandbox
        .device
        .as_ref()
        .is_some_and(|device| !is_there(device))
}

/// Who does not wait any more asks again.
fn reply(to: oneshot::Sender<Answer>, answer: Answer) {
    let _ = to.send(answer);
}
