//! `weir audit`.

use super::table::table;
use crate::admin::Audit;

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
