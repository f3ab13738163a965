//! What kube-proxy left in a rule set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::names::{MARK, MASQUERADE, is_kubelets, is_own, is_own_chain, is_own_entry};
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
    /// Rules of kube-proxy's in others' chains that lead there.
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

/// A rule of somebody else that leads to kube-proxy's chains: these stay as long as it does.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// Family and name of its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number in the table.
    pub handle: u64,
    /// What it says.
    pub rule: String,
    /// Chains of kube-proxy in the table that it needs.
    pub keeps: Vec<String>,
}

impl Foreign {
    /// A command that deletes it.
    #[must_use]
    pub fn delete(&self) -> String {
        let Self {
            table,
            chain,
            handle,
            ..
        } = self;
        format!("nft delete rule {table} {chain} handle {handle}")
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            chain,
            handle,
            rule,
            ..
        } = self;
        write!(f, "rule {handle} of chain {chain} of table {table}: {rule}")
    }
}

/// What kube-proxy left, and what only looks like it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    tables: Vec<TableId>,
    chains: Vec<Chain>,
    leading: Vec<Rule>,
    foreign: Vec<Foreign>,
    kubelets: Vec<Chain>,
}

/// A chain by its table and name.
type Named<'a> = (&'a TableId, &'a str);

impl Remains {
    /// Finds it.
    #[must_use]
    pub fn of(ruleset: &Ruleset) -> Self {
        let chosen = |is: fn(&Chain) -> bool| -> Vec<Chain> {
            let chains = ruleset.chains.iter();
            chains.filter(|chain| is(chain)).cloned().collect()
        };
        let mut chains = chosen(is_own_chain);
        let (mut leading, mut between, mut others) = (Vec::new(), BTreeMap::new(), Vec::new());
        let own: BTreeSet<_> = chains.iter().map(named).collect();
        for rule in &ruleset.rules {
            let Some(target) = target(rule).filter(|target| own.contains(target)) else {
                continue;
            };
            let chain = (&rule.table, rule.chain.as_str());
            if own.contains(&chain) {
                between.entry(chain).or_insert_with(Vec::new).push(target);
            } else if is_own_entry(rule, target.1) {
                leading.push(rule.clone());
            } else {
                others.push((rule, target));
            }
        }
        let mut kept = BTreeSet::new();
        let mut foreign = Vec::new();
        for (rule, target) in others {
            let needed = needed(target, &own, &between);
            foreign.push(Foreign {
                table: rule.table.to_string(),
                chain: rule.chain.clone(),
                handle: rule.handle,
                rule: rule.to_string(),
                keeps: needed.iter().map(|(_, name)| (*name).to_owned()).collect(),
            });
            kept.extend(
                needed
                    .into_iter()
                    .map(|(table, name)| (table.clone(), name.to_owned())),
            );
        }
        let is_kept = |(table, name): Named<'_>| kept.contains(&(table.clone(), name.to_owned()));
        leading.retain(|rule| !target(rule).is_some_and(is_kept));
        chains.retain(|chain| !is_kept(named(chain)));
        let tables = ruleset.tables.iter();
        Self {
            tables: tables.filter(|table| is_own(table)).cloned().collect(),
            leading,
            foreign,
            kubelets: chosen(is_kubelets),
            chains,
        }
    }

    /// Rules of others, which keep some of kube-proxy's chains where they are.
    #[must_use]
    pub fn foreign(&self) -> &[Foreign] {
        &self.foreign
    }

    /// Whether there is nothing of kube-proxy to take out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.chains.is_empty()
    }

    /// What there is of kube-proxy to take out, by table.
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

fn named(chain: &Chain) -> Named<'_> {
    (&chain.table, chain.name.as_str())
}

fn target(rule: &Rule) -> Option<Named<'_>> {
    match &rule.verdict {
        Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some((&rule.table, chain.as_str())),
        _ => None,
    }
}

/// The chains that a rule that leads to one of them needs: where that leads, and what a mark is for.
fn needed<'a>(
    target: Named<'a>,
    own: &BTreeSet<Named<'a>>,
    between: &BTreeMap<Named<'a>, Vec<Named<'a>>>,
) -> BTreeSet<Named<'a>> {
    let mut needed = BTreeSet::new();
    let mut next = vec![target];
    while let Some(chain) = next.pop() {
        if !needed.insert(chain) {
            continue;
        }
        next.extend(between.get(&chain).into_iter().flatten());
        let masquerade = (chain.0, MASQUERADE);
        if chain.1 == MARK && own.contains(&masquerade) {
            next.push(masquerade);
        }
    }
    needed
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
