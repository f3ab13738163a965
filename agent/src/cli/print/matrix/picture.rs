//! A matrix as a picture (SVG 2).

use maud::{PreEscaped, html};

use super::{REACHES, hint, meaning, name, ports, symbol, word};
use crate::review::{Matrix, Reach};

/// Side of a cell; the unit of all lengths is a pixel.
const CELL: usize = 22;
/// Advance of a character of the font, rounded up.
const CHARACTER: usize = 8;
const MARGIN: usize = 12;
/// Height of a line of text.
const LINE: usize = 20;
/// The title and what rows and columns are.
const HEADING: usize = 2 * LINE;

const STYLE: &str = include_str!("picture.css");
/// What a document begins with that is no part of an HTML page.
const PROLOG: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// A whole document.
#[must_use]
pub fn picture(matrix: &Matrix) -> String {
    let names: Vec<String> = matrix.workloads.iter().map(name).collect();
    let longest = names.iter().map(|name| name.chars().count()).max();
    let labels = (longest.unwrap_or_default() + 1) * CHARACTER;
    let side = names.len() * CELL;
    // Top left of the cells.
    let (left, top) = (MARGIN + labels, MARGIN + HEADING + labels);
    let legend = top + side + LINE;
    let title = format!("Who reaches whom: {}", ports(matrix));
    let widest = REACHES.map(|reach| CELL + (meaning(reach).len() + 1) * CHARACTER);
    let text = [title.len(), SUBTITLE.len()].map(|length| length * CHARACTER);
    let width = widest
        .into_iter()
        .chain(text)
        .map(|width| MARGIN + width)
        .chain([left + side])
        .max()
        .unwrap_or_default()
        + MARGIN;
    let height = legend + REACHES.len() * CELL + MARGIN;
    let rows = matrix.workloads.iter().zip(&matrix.reach);
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox=(format!("0 0 {width} {height}")) role="img" {
            title { (title) }
            style { (PreEscaped(STYLE)) }
            defs {
                @for reach in REACHES {
                    g id=(word(reach)) {
                        rect class=(word(reach)) width=(CELL - 1) height=(CELL - 1) {}
                        text class="mark" x=(CELL / 2) y=(CELL / 2) { (symbol(reach)) }
                    }
                }
            }
            rect class="page" width=(width) height=(height) {}
            text class="title" x=(MARGIN) y=(MARGIN + LINE / 2) { (title) }
            text x=(MARGIN) y=(MARGIN + LINE / 2 + LINE) { (SUBTITLE) }
            @for (number, name) in names.iter().enumerate() {
                @let middle = number * CELL + CELL / 2;
                text class="row" x=(left - CHARACTER / 2) y=(top + middle) { (name) }
                text transform=(format!("translate({} {}) rotate(-90)", left + middle, top - CHARACTER / 2)) { (name) }
            }
            @for (row, (from, reach)) in rows.enumerate() {
                @for (column, (to, reach)) in matrix.workloads.iter().zip(reach).enumerate() {
                    (cell(left + column * CELL, top + row * CELL, *reach, &hint(from, to, *reach)))
                }
            }
            @for (number, reach) in REACHES.into_iter().enumerate() {
                @let y = legend + number * CELL;
                (cell(MARGIN, y, reach, word(reach)))
                text x=(MARGIN + CELL + CHARACTER) y=(y + CELL / 2) { (meaning(reach)) }
            }
        }
    };
    format!("{PROLOG}{}\n", svg.into_string())
}

const SUBTITLE: &str = "As policies have it. Rows open connections, columns take them.";

/// A square with a mark at a place.
fn cell(x: usize, y: usize, reach: Reach, hint: &str) -> maud::Markup {
    html! {
        use href=(format!("#{}", word(reach))) x=(x) y=(y) { title { (hint) } }
    }
}
