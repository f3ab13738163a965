//! `weir matrix`: a table for a terminal, a page for a browser, a picture for a document.

mod page;
mod picture;

use std::fmt::Write;

pub use self::page::page as matrix_page;
pub use self::picture::picture as matrix_picture;

use super::table::table;
use crate::review::{Matrix, MatrixEnd, Reach};

/// Rows open connections, columns take them.
#[must_use]
pub fn matrix(matrix: &Matrix) -> String {
    if matrix.workloads.is_empty() {
        return "there are no pods with addresses of their own\n".to_owned();
    }
    let numbers: Vec<String> = (1..=matrix.workloads.len())
        .map(|number| number.to_string())
        .collect();
    let fixed = ["", "FROM", "PODS"];
    let header: Vec<&str> = fixed
        .into_iter()
        .chain(numbers.iter().map(String::as_str))
        .collect();
    let rows = matrix.workloads.iter().zip(&matrix.reach).zip(&numbers);
    let rows = rows.map(|((workload, reach), number)| {
        let own = [number.clone(), name(workload), workload.pods.to_string()];
        let reach = reach.iter().map(|reach| symbol(*reach).to_owned());
        own.into_iter().chain(reach).collect()
    });
    let mut text = table("", &header, rows);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n{}, from the row to the column: {} allowed, {} denied, {} partly (some ports, pods or one address family), {} nothing to tell\n",
        ports(matrix),
        symbol(Reach::Allowed),
        symbol(Reach::Denied),
        symbol(Reach::Partly),
        symbol(Reach::Nothing)
    );
    text
}

/// What was asked about.
fn ports(matrix: &Matrix) -> String {
    match matrix.port {
        None => "every port".to_owned(),
        Some(port) => port.to_string(),
    }
}

fn name(workload: &MatrixEnd) -> String {
    format!("{}/{}", workload.namespace, workload.workload)
}

/// In the order of a legend.
const REACHES: [Reach; 4] = [Reach::Allowed, Reach::Denied, Reach::Partly, Reach::Nothing];

/// In words, and as the class of what is drawn.
const fn word(reach: Reach) -> &'static str {
    match reach {
        Reach::Allowed => "allowed",
        Reach::Denied => "denied",
        Reach::Partly => "partly",
        Reach::Nothing => "nothing",
    }
}

/// What a legend says of it.
const fn meaning(reach: Reach) -> &'static str {
    match reach {
        Reach::Allowed => "allowed",
        Reach::Denied => "denied",
        Reach::Partly => "some ports, pods or one address family",
        Reach::Nothing => "nothing to tell",
    }
}

/// What a cell says to who points at it.
fn hint(from: &MatrixEnd, to: &MatrixEnd, reach: Reach) -> String {
    format!("{} to {}: {}", name(from), name(to), meaning(reach))
}

const fn symbol(reach: Reach) -> &'static str {
    match reach {
        Reach::Allowed => "+",
        Reach::Denied => "x",
        Reach::Partly => "~",
        Reach::Nothing => ".",
    }
}
