//! Changes of a rule set, carried out as a whole or not at all.

use std::io;

use super::super::attributes::Attributes;
use super::super::socket::{Netfilter, Request};
use super::{Chain, Rule, SUBSYSTEM, TableId, attribute as at, message, rule};

/// Changes in their order, each with what it is, for an error.
#[derive(Debug, Default)]
pub struct Batch {
    requests: Vec<(Request, String)>,
}

impl Batch {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    fn push(
        &mut self,
        kind: u8,
        flags: i32,
        table: &TableId,
        attributes: Attributes,
        what: String,
    ) {
        let request = Request {
            kind: u16::from_be_bytes([SUBSYSTEM, kind]),
            flags,
            family: table.family.number(),
            attributes,
        };
        self.requests.push((request, what));
    }

    /// Makes a table, if there is none.
    pub fn add_table(&mut self, table: &TableId) {
        let attributes = Attributes::new().text(at::TABLE_NAME, &table.name);
        let what = format!("make table {table}");
        self.push(
            message::NEW_TABLE,
            libc::NLM_F_CREATE,
            table,
            attributes,
            what,
        );
    }

    /// Makes a base chain of type `nat` at hook `prerouting`, with a rule that no packet fits.
    pub fn add_idle_nat_chain(
        &mut self,
        table: &TableId,
        name: &str,
        priority: i32,
        comment: &str,
    ) {
        const PREROUTING: u32 = 0;
        let hook = Attributes::new()
            .number(at::HOOK_NUMBER, PREROUTING)
            .number(at::HOOK_PRIORITY, priority.cast_unsigned());
        let attributes = Attributes::new()
            .text(at::CHAIN_TABLE, &table.name)
            .text(at::CHAIN_NAME, name)
            .nested(at::CHAIN_HOOK, &hook)
            .text(at::CHAIN_TYPE, "nat");
        let what = format!("make chain {name} of table {table}");
        self.push(
            message::NEW_CHAIN,
            libc::NLM_F_CREATE,
            table,
            attributes,
            what,
        );
        self.add_rule(table, name, rule::of_replies(), comment);
    }

    /// Puts a rule before all others of a chain that accepts what comes in by a device of that name, or goes out by one; `prefix`:
    /// or of one that begins so.
    pub fn accept(&mut self, chain: &Chain, name: &str, prefix: bool, from: bool, comment: &str) {
        let expressions = rule::accepted(name, prefix, from);
        self.add_rule(&chain.table, &chain.name, expressions, comment);
    }

    fn add_rule(&mut self, table: &TableId, chain: &str, expressions: Attributes, comment: &str) {
        let attributes = Attributes::new()
            .text(at::RULE_TABLE, &table.name)
            .text(at::RULE_CHAIN, chain)
            .nested(at::RULE_EXPRESSIONS, &expressions)
            .bytes(at::RULE_USER_DATA, &rule::user_data(comment));
        let what = format!("add a rule to chain {chain} of table {table}");
        self.push(
            message::NEW_RULE,
            // Behind the others: what somebody drops on purpose stays dropped.
            libc::NLM_F_CREATE | libc::NLM_F_APPEND,
            table,
            attributes,
            what,
        );
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, table: &TableId) {
        let attributes = Attributes::new().text(at::TABLE_NAME, &table.name);
        let what = format!("delete table {table}");
        self.push(message::DELETE_TABLE, 0, table, attributes, what);
    }

    /// Deletes a rule.
    pub fn delete_rule(&mut self, rule: &Rule) {
        let attributes = Attributes::new()
            .text(at::RULE_TABLE, &rule.table.name)
            .text(at::RULE_CHAIN, &rule.chain)
            .bytes(at::RULE_HANDLE, &rule.handle.to_be_bytes());
        let what = format!(
            "delete a rule of chain {} of table {}",
            rule.chain, rule.table
        );
        self.push(message::DELETE_RULE, 0, &rule.table, attributes, what);
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &Chain) {
        let attributes = Attributes::new()
            .text(at::RULE_TABLE, &chain.table.name)
            .text(at::RULE_CHAIN, &chain.name);
        let what = format!("empty chain {} of table {}", chain.name, chain.table);
        self.push(message::DELETE_RULE, 0, &chain.table, attributes, what);
    }

    /// Deletes a chain that nothing leads to and that has no rules.
    pub fn delete_chain(&mut self, chain: &Chain) {
        let attributes = Attributes::new()
            .text(at::CHAIN_TABLE, &chain.table.name)
            .text(at::CHAIN_NAME, &chain.name);
        let what = format!("delete chain {} of table {}", chain.name, chain.table);
        self.push(message::DELETE_CHAIN, 0, &chain.table, attributes, what);
    }
}

/// Carries out changes of the rule set of that generation; `false` when it has been changed by others since.
///
/// # Errors
/// With what the kernel refused; then nothing has changed.
pub fn change(generation: u32, batch: Batch) -> io::Result<bool> {
    if batch.is_empty() {
        return Ok(true);
    }
    let (requests, what): (Vec<_>, Vec<_>) = batch.requests.into_iter().unzip();
    let result = Netfilter::open()?.batch(SUBSYSTEM, generation, &requests);
    match result {
        Ok(()) => Ok(true),
        Err((_, error)) if error.raw_os_error() == Some(libc::ERESTART) => Ok(false),
        Err((place, error)) => {
            let what = what.get(place).map_or("change the rules", String::as_str);
            Err(io::Error::new(
                error.kind(),
                format!("cannot {what}: {error}"),
            ))
        }
    }
}
