//! What kube-proxy left in a rule set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::names::{is_kubelets, is_own, is_own_chain};
use crate::netlink::netfilter::{Addresses, Batch, Chain, Rule, Ruleset, TableId, Verdict};

/// A device's name, or what names of devices begin with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName {
    /// Name.
    pub name: String,
    /// Whether longer names count, too.
    pub prefix: bool,
}

impl DeviceName {
    /// Whether it is among what a rule asks.
    pub(super) fn is_asked(&self, asked: &[Addresses]) -> bool {
        asked.iter().any(|asked| match asked {
            Addresses::Device { name, prefix } => (name, *prefix) == (&self.name, self.prefix),
            Addresses::Network(_) => false,
        })
    }
}

/// Chains of one table, or a whole table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Family and name.
    pub table: String,
    /// Its chains that are meant; empty for the whole table.
    pub chains: Vec<String>,
    /// Rules of others' chains that lead there.
    pub leading: usize,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.table;
        match self.chains.as_slice() {
            [] => write!(f, "table {table}")?,
            [chain] => write!(f, "chain {chain} of table {table}")?,
            chains => write!(f, "{} chains of table {table}", chains.len())?,
        }
        match self.leading {
            0 => Ok(()),
            1 => f.write_str(" and 1 rule that leads there"),
            n => write!(f, " and {n} rules that lead there"),
        }
    }
}

/// What kube-proxy left, and what only looks like it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    tables: Vec<TableId>,
    chains: Vec<Chain>,
    leading: Vec<Rule>,
    kubelets: Vec<Chain>,
}

impl Remains {
    /// Finds it.
    #[must_use]
    pub fn of(ruleset: &Ruleset) -> Self {
        let chosen = |is: fn(&Chain) -> bool| -> Vec<Chain> {
            let chains = ruleset.chains.iter();
            chains.filter(|chain| is(chain)).cloned().collect()
        };
        let chains = chosen(is_own_chain);
        let own: BTreeSet<_> = chains
            .iter()
            .map(|chain| (&chain.table, chain.name.as_str()))
            .collect();
        let leads_there = |rule: &&Rule| {
            let target = match &rule.verdict {
                Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => chain.as_str(),
                _ => return false,
            };
            own.contains(&(&rule.table, target)) && !own.contains(&(&rule.table, &*rule.chain))
        };
        let leading = ruleset.rules.iter().filter(leads_there).cloned().collect();
        let tables = ruleset.tables.iter();
        Self {
            tables: tables.filter(|table| is_own(table)).cloned().collect(),
            leading,
            kubelets: chosen(is_kubelets),
            chains,
        }
    }

    /// Whether there is nothing of kube-proxy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.chains.is_empty()
    }

    /// What there is of kube-proxy, by table.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let tables = self.tables.iter().map(|table| Part {
            table: table.to_string(),
            chains: Vec::new(),
            leading: 0,
        });
        tables
            .chain(by_table(&self.chains, &self.leading))
            .collect()
    }

    /// What there is of the kubelet.
    #[must_use]
    pub fn kept(&self) -> Vec<Part> {
        by_table(&self.kubelets, &[]).collect()
    }

    /// Takes it out: first what leads to the chains, then their rules, which lead from one to the other, then themselves.
    pub(super) fn remove(&self, batch: &mut Batch) {
        for table in &self.tables {
            batch.delete_table(table);
        }
        for rule in &self.leading {
            batch.delete_rule(rule);
        }
        for chain in &self.chains {
            batch.flush_chain(chain);
        }
        for chain in &self.chains {
            batch.delete_chain(chain);
        }
    }
}

fn by_table(chains: &[Chain], leading: &[Rule]) -> impl Iterator<Item = Part> + use<> {
    let mut parts: BTreeMap<&TableId, Vec<String>> = BTreeMap::new();
    for chain in chains {
        parts
            .entry(&chain.table)
            .or_default()
            .push(chain.name.clone());
    }
    let parts: Vec<_> = parts
        .into_iter()
        .map(|(table, chains)| Part {
            table: table.to_string(),
            chains,
            leading: leading.iter().filter(|rule| rule.table == *table).count(),
        })
        .collect();
    parts.into_iter()
}
