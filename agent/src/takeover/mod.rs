//! From kube-proxy to Weir: what kube-proxy leaves in netfilter is found and taken out, and nothing else.
//!
//! Connections that kube-proxy has translated stay netfilter's, see [`KEEPER`].

mod ipvs;
mod names;
mod remains;
mod running;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;

pub use ipvs::{Ipvs, IpvsDevice};
pub use remains::{DeviceName, Foreign, Part, Remains};
pub use running::{Running, kube_proxy, legacy_tables};

use crate::netlink::netfilter::{Batch, Chain, Ruleset, TableFamily, TableId, change, ruleset};

/// Weir's own table.
const TABLE: &str = "weir";
/// Weir's chain in it. netfilter translates the packets of a connection that it has translated before for as long as anybody in
/// the network namespace has a chain of type `nat`, and tracks connections for as long as any rule asks about them. So this chain of that type has
/// one such rule, which no packet ever fits.
const KEEPER: &str = "kube-proxy-connections";
/// After all others.
const PRIORITY: i32 = 300;
/// Comment of the rule in [`KEEPER`].
const KEEPER_COMMENT: &str =
    "keeps netfilter translating for connections of kube-proxy's time; see weir takeover";
/// Comment of the rules that [`Change::forward`] asks for: whoever reads them should know whose they are.
pub const FORWARD_COMMENT: &str = "weir: pods; removed by weir cleanup";
/// How often others may change the rules meanwhile.
const TRIES: usize = 10;

/// Why rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules cannot be read.
    #[error(
        "cannot read the rules of nf_tables ({0}): run this as root in the node's network namespace"
    )]
    Read(#[source] io::Error),
    /// The kernel refused; nothing has changed.
    #[error("{0}; nothing has been changed")]
    Change(#[source] io::Error),
    /// Somebody else does so all the time.
    #[error(
        "somebody else changes the rules all the time; nothing has been changed: is kube-proxy still running?"
    )]
    Busy,
}

/// What to change.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Take out what kube-proxy left.
    pub kube_proxy: bool,
    /// Accept what comes from and goes to these devices, where the node drops what it forwards.
    pub forward: BTreeSet<DeviceName>,
}

/// What was found, or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Of kube-proxy, taken out.
    pub removed: Vec<Part>,
    /// Of the kubelet, left.
    pub kept: Vec<Part>,
    /// Rules of others that lead to chains of kube-proxy, left with these.
    pub foreign: Vec<Foreign>,
    /// Tables of the old iptables, into which nobody has looked.
    pub legacy: Vec<String>,
    /// Of mode `ipvs`, besides rules.
    pub ipvs: Ipvs,
    /// Whether its device was removed.
    pub ipvs_removed: bool,
    /// Chains that got rules to accept what pods send and get.
    pub accepting: Vec<String>,
}

/// Changes the rules, all at once. A dry run only says what it would do.
///
/// # Errors
/// Nothing has changed then.
pub fn carry_out(wanted: &Change, dry_run: bool) -> Result<Report, Error> {
    attempt(dry_run, |ruleset| plan(ruleset, wanted))
}

/// Removes all rules of Weir's own; `false` when there were none.
///
/// # Errors
/// Nothing has changed then.
pub fn remove_own() -> Result<bool, Error> {
    attempt(false, |ruleset| {
        let mut batch = Batch::new();
        remove_forward(ruleset, &mut batch);
        remove_keeper(ruleset, &mut batch);
        let any = !batch.is_empty();
        (batch, any)
    })
}

/// Removes what keeps netfilter translating; `false` when it was not there.
///
/// # Errors
/// Nothing has changed then.
pub fn finish() -> Result<bool, Error> {
    attempt(false, |ruleset| {
        let mut batch = Batch::new();
        remove_keeper(ruleset, &mut batch);
        let any = !batch.is_empty();
        (batch, any)
    })
}

fn attempt<T>(dry_run: bool, plan: impl Fn(&Ruleset) -> (Batch, T)) -> Result<T, Error> {
    for _ in 0..TRIES {
        let ruleset = ruleset().map_err(Error::Read)?;
        let (batch, answer) = plan(&ruleset);
        if dry_run || change(ruleset.generation, batch).map_err(Error::Change)? {
            return Ok(answer);
        }
    }
    Err(Error::Busy)
}

fn plan(ruleset: &Ruleset, wanted: &Change) -> (Batch, Report) {
    let mut batch = Batch::new();
    let mut report = Report::default();
    let remains = Remains::of(ruleset);
    if wanted.kube_proxy && !remains.is_empty() {
        // First: between two chains of the type there must be no moment without any.
        add_keeper(ruleset, &mut batch);
        remains.remove(&mut batch);
        report.removed = remains.parts();
    }
    report.kept = remains.kept();
    report.foreign = remains.foreign().to_vec();
    for chain in dropping(ruleset) {
        let missing: Vec<_> = wanted
            .forward
            .iter()
            .filter(|device| !accepts(ruleset, chain, device))
            .collect();
        for device in &missing {
            for from in [true, false] {
                batch.accept(chain, &device.name, device.prefix, from, FORWARD_COMMENT);
            }
        }
        if !missing.is_empty() {
            report
                .accepting
                .push(format!("{} {}", chain.table, chain.name));
        }
    }
    (batch, report)
}

/// Base chains that drop what the node forwards unless a rule says otherwise.
fn dropping(ruleset: &Ruleset) -> impl Iterator<Item = &Chain> {
    const FORWARD: u32 = 2;
    ruleset.chains.iter().filter(|chain| {
        let hook = chain.hook.as_ref();
        hook.is_some_and(|hook| hook.number == FORWARD && hook.drops && hook.kind == "filter")
    })
}

/// Whether Weir's rules for a device are in a chain.
fn accepts(ruleset: &Ruleset, chain: &Chain, device: &DeviceName) -> bool {
    let own = own_rules(ruleset);
    own.filter(|rule| rule.table == chain.table && rule.chain == chain.name)
        .any(|rule| device.is_asked(&rule.matches.from))
}

fn own_rules(ruleset: &Ruleset) -> impl Iterator<Item = &crate::netlink::netfilter::Rule> {
    let rules = ruleset.rules.iter();
    rules.filter(|rule| rule.comment.as_deref() == Some(FORWARD_COMMENT))
}

fn remove_forward(ruleset: &Ruleset, batch: &mut Batch) {
    for rule in own_rules(ruleset) {
        batch.delete_rule(rule);
    }
}

fn table() -> TableId {
    TableId::new(TableFamily::Inet, TABLE)
}

fn add_keeper(ruleset: &Ruleset, batch: &mut Batch) {
    let table = table();
    let there = |chain: &Chain| chain.table == table && chain.name == KEEPER;
    if !ruleset.chains.iter().any(there) {
        batch.add_table(&table);
        batch.add_idle_nat_chain(&table, KEEPER, PRIORITY, KEEPER_COMMENT);
    }
}

fn remove_keeper(ruleset: &Ruleset, batch: &mut Batch) {
    let table = table();
    if ruleset.tables.contains(&table) {
        batch.delete_table(&table);
    }
}
