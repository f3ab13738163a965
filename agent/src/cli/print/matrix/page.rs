//! A matrix as a page: a table whose heads stay in sight. It needs no script and nothing from elsewhere.

use maud::{DOCTYPE, PreEscaped, html};

use super::{REACHES, hint, meaning, name, ports, symbol, word};
use crate::review::{Matrix, MatrixEnd};

const STYLE: &str = include_str!("page.css");

/// A whole document.
#[must_use]
pub fn page(matrix: &Matrix) -> String {
    let title = format!("Who reaches whom: {}", ports(matrix));
    let rows = matrix.workloads.iter().zip(&matrix.reach);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p { "As policies have it. Rows open connections, columns take them." }
                ul {
                    @for reach in REACHES {
                        li { span class=(word(reach)) { (symbol(reach)) } " " (meaning(reach)) }
                    }
                }
                @if matrix.workloads.is_empty() {
                    p { "There are no pods with addresses of their own." }
                } @else {
                    table {
                        thead {
                            tr {
                                td {}
                                @for workload in &matrix.workloads {
                                    th scope="col" { (end(workload)) }
                                }
                            }
                        }
                        tbody {
                            @for (from, reach) in rows {
                                tr {
                                    th scope="row" { (end(from)) }
                                    @for (to, reach) in matrix.workloads.iter().zip(reach) {
                                        td class=(word(*reach)) title=(hint(from, to, *reach)) {
                                            (symbol(*reach))
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn end(workload: &MatrixEnd) -> maud::Markup {
    let pods = if workload.pods == 1 { "pod" } else { "pods" };
    html! {
        span { (name(workload)) " " small { (workload.pods) " " (pods) } }
    }
}
