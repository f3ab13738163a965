//! Reads a [`Ruleset`].

use std::io;

use super::super::attributes::{Attributes, find, long, number, text};
use super::super::socket::{Dump, Message, Netfilter, Request};
use super::{
    Chain, Hook, Rule, Ruleset, SUBSYSTEM, TableFamily, TableId, attribute as at, message, rule,
};

/// How often a rule set that is being changed is read again.
const TRIES: usize = 10;
/// `NF_DROP` as a policy.
const DROP: u32 = 0;

/// The rule set of this network namespace; empty where the kernel has no nf_tables.
///
/// # Errors
/// When the kernel does not answer, or the rules change faster than they can be read.
pub fn ruleset() -> io::Result<Ruleset> {
    let Some(netfilter) = Netfilter::open_if_any()? else {
        return Ok(Ruleset::default());
    };
    for _ in 0..TRIES {
        let Some(before) = generation(&netfilter)? else {
            return Ok(Ruleset::default());
        };
        let mut ruleset = Ruleset {
            generation: before,
            ..Ruleset::default()
        };
        let whole = read(&netfilter, &mut ruleset)?;
        if whole && generation(&netfilter)? == Some(before) {
            return Ok(ruleset);
        }
    }
    Err(io::Error::other(
        "the rules of nf_tables change faster than they can be read",
    ))
}

/// Number of the last change; `None` where there is no nf_tables.
fn generation(netfilter: &Netfilter) -> io::Result<Option<u32>> {
    let mut generation = None;
    let asked = netfilter.ask(&get(message::GET_GENERATION, 0), |message| {
        generation = number(message.attributes, at::GENERATION);
    });
    match asked {
        // The subsystem is not there (a kernel without it, or a module that nobody may load).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(None)
        }
        asked => asked.map(|_| generation),
    }
}

fn get(kind: u8, flags: i32) -> Request {
    Request {
        kind: u16::from_be_bytes([SUBSYSTEM, kind]),
        flags,
        // All families.
        family: 0,
        attributes: Attributes::new(),
    }
}

fn read(netfilter: &Netfilter, ruleset: &mut Ruleset) -> io::Result<bool> {
    let dump = |kind, visit: &mut dyn FnMut(Message<'_>)| {
        let asked = netfilter.ask(&get(kind, libc::NLM_F_DUMP), visit)?;
        Ok::<_, io::Error>(asked == Dump::Whole)
    };
    let tables = dump(message::GET_TABLE, &mut |message| {
        ruleset.tables.extend(table(&message, at::TABLE_NAME));
    })?;
    let chains = dump(message::GET_CHAIN, &mut |message| {
        ruleset.chains.extend(chain(&message));
    })?;
    let rules = dump(message::GET_RULE, &mut |message| {
        ruleset.rules.extend(read_rule(&message));
    })?;
    Ok(tables && chains && rules)
}

fn table(message: &Message<'_>, name: u16) -> Option<TableId> {
    Some(TableId {
        family: TableFamily::from_number(message.family)?,
        name: text(message.attributes, name)?,
    })
}

fn chain(message: &Message<'_>) -> Option<Chain> {
    let attributes = message.attributes;
    let hook = find(attributes, at::CHAIN_HOOK).and_then(|hook| {
        Some(Hook {
            number: number(hook, at::HOOK_NUMBER)?,
            priority: number(hook, at::HOOK_PRIORITY)?.cast_signed(),
            kind: text(attributes, at::CHAIN_TYPE)?,
            drops: number(attributes, at::CHAIN_POLICY) == Some(DROP),
        })
    });
    Some(Chain {
        table: table(message, at::CHAIN_TABLE)?,
        name: text(attributes, at::CHAIN_NAME)?,
        hook,
    })
}

fn read_rule(message: &Message<'_>) -> Option<Rule> {
    let attributes = message.attributes;
    let expressions = find(attributes, at::RULE_EXPRESSIONS).unwrap_or_default();
    let (matches, verdict) = rule::meaning(expressions);
    Some(Rule {
        table: table(message, at::RULE_TABLE)?,
        chain: text(attributes, at::RULE_CHAIN)?,
        handle: long(attributes, at::RULE_HANDLE)?,
        matches,
        verdict,
        comment: find(attributes, at::RULE_USER_DATA)
            .and_then(rule::comment)
            .or_else(|| rule::iptables_comment(expressions)),
    })
}
