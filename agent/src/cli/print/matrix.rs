//! `weir matrix`.

use std::fmt::Write;

use super::table::table;
use crate::review::{Matrix, Reach};

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
        let own = [
            number.clone(),
            format!("{}/{}", workload.namespace, workload.workload),
            workload.pods.to_string(),
        ];
        let reach = reach.iter().map(|reach| symbol(*reach).to_owned());
        own.into_iter().chain(reach).collect()
    });
    let mut text = table("", &header, rows);
    let ports = match matrix.port {
        None => "every port".to_owned(),
        Some(port) => port.to_string(),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n{ports}, from the row to the column: {} allowed, {} denied, {} partly (some ports, pods or one address family), {} nothing to tell\n",
        symbol(Reach::Allowed),
        symbol(Reach::Denied),
        symbol(Reach::Partly),
        symbol(Reach::Nothing)
    );
    text
}

const fn symbol(reach: Reach) -> &'static str {
    match reach {
        Reach::Allowed => "+",
        Reach::Denied => "x",
        Reach::Partly => "~",
        Reach::Nothing => ".",
    }
}
