//! What lists have in common, as kubectl has it.

use clap::Args;

use super::query::Scope;
use crate::cli::print::Table;
use crate::model::Selector;

/// Which objects a list has, and how it is shown.
#[derive(Args, Clone, Debug, Default)]
pub struct Listing {
    /// Which namespaces
    #[command(flatten)]
    pub scope: Scope,
    /// Only those with these labels: a=b, a!=b, a in (x,y), a notin (x,y), a, !a, with commas between several
    #[arg(
        short = 'l',
        long,
        value_name = "SELECTOR",
        default_value = "",
        hide_default_value = true
    )]
    pub selector: Selector,
    /// Go on, and print what is added, modified and deleted, until interrupted; with -o json a line for each
    #[arg(short, long)]
    pub watch: bool,
    /// Headers
    #[command(flatten)]
    pub headers: Headers,
}

/// Whether a table has a line of headers.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Headers {
    /// Without the line of headers
    #[arg(long)]
    pub no_headers: bool,
}

impl Headers {
    /// A table with them or without.
    pub(in crate::cli) fn of(self, table: Table) -> Table {
        if self.no_headers {
            table.without_headers()
        } else {
            table
        }
    }
}
