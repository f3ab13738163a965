//! `weir audit`.

use serde::Serialize;

use super::table::table;
use crate::admin::Audit;

/// What was found on a node of a cluster.
#[derive(Serialize)]
pub struct NodeAudit<'a> {
    /// The node.
    pub node: &'a str,
    /// What was found there.
    #[serde(flatten)]
    pub audit: &'a Audit,
}

/// What was found in a cluster, node by node.
#[must_use]
pub fn audits(nodes: &[NodeAudit<'_>]) -> String {
    let rows = nodes.iter().map(|it| {
        let tables = it.audit.tables.iter();
        vec![
            it.node.to_owned(),
            tables
                .map(|table| table.elements)
                .sum::<usize>()
                .to_string(),
            format!("{} of {}", it.audit.questions, it.audit.atoms),
            it.audit.differences.len().to_string(),
        ]
    });
    let mut text = table("", &["NODE", "ELEMENTS", "QUESTIONS", "DIFFERENCES"], rows);
    for it in nodes {
        for difference in &it.audit.differences {
            text += &format!("{}: {difference}\n", it.node);
        }
    }
    text
}

/// What was compared, and what was found.
#[must_use]
pub fn audit(audit: &Audit) -> String {
    let rows = audit.tables.iter().map(|it| {
        vec![
            it.name.clone(),
            it.elements.to_string(),
            it.differences.to_string(),
        ]
    });
    let mut text = table("", &["MAP", "ELEMENTS", "DIFFERENCES"], rows);
    text += &format!(
        "\n{} of {} questions to policies asked, of objects and of tables\n",
        audit.questions, audit.atoms
    );
    for difference in &audit.differences {
        text += &format!("{difference}\n");
    }
    if audit.differences.is_empty() {
        text += "no difference\n";
    }
    text
}
