//! Draws the screen.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Row, Table};

use super::columns::{self, Column};
use super::screen::Screen;
use crate::cli::args::{By, Sort};

/// Most lines of agents that tell nothing.
const TROUBLES: usize = 4;
/// Space between columns.
const GAP: usize = 2;
/// A name that is longer gives way to numbers.
const NAME: usize = 14;
/// The first columns, which say what a row is about.
const NAMES: usize = 2;

/// Draws it; without colours where nobody wants them.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, colours: bool) {
    let style = |style: Style| if colours { style } else { Style::new() };
    let troubles = troubles(screen);
    let [head, tabs, table, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(troubles.len() as u16),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(summary(screen), head);
    frame.render_widget(boards(screen.choice.by), tabs);
    rows(frame, screen, table);
    let red = style(Style::new().red());
    frame.render_widget(Text::from(troubles).style(red), below);
    frame.render_widget(footer(screen).style(style(Style::new().dim())), foot);
}

/// How much there is of everything.
fn summary(screen: &Screen) -> Line<'static> {
    let nodes = &screen.picture.nodes;
    let told: Vec<_> = nodes.iter().filter(|part| part.error.is_none()).collect();
    let Some(time) = screen.picture.time else {
        return Line::from("waiting for the agents ...");
    };
    let who = match &told[..] {
        [one] => one.node.clone(),
        several => format!("{} nodes", several.len()),
    };
    let flows: u64 = told.iter().map(|part| part.flows).sum();
    let refused: f64 = told.iter().map(|part| part.refused_per_second).sum();
    let lost: u64 = told.iter().map(|part| part.records_lost).sum();
    let mut line = format!(
        "{who}  {}  {flows} flows  {} drops/s",
        time.strftime("%H:%M:%SZ"),
        columns::number(refused)
    );
    if lost > 0 {
        line += &format!("  {lost} records lost");
    }
    if screen.is_paused {
        line += "  PAUSED";
    }
    Line::from(line)
}

fn boards(shown: By) -> Line<'static> {
    let name = |by: By| {
        let name = match by {
            By::Workloads => "Workloads",
            By::Pods => "Pods",
            By::Services => "Services",
            By::Drops => "Drops",
        };
        // Also without colours one sees which.
        if by == shown {
            Span::from(format!("[{name}]")).bold()
        } else {
            Span::from(format!(" {name} "))
        }
    };
    Line::from_iter(By::ALL.map(name))
}

fn rows(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let by = screen.choice.by;
    let mut chosen = screen.choice.of(&screen.picture);
    chosen.rows.drain(..screen.first.min(chosen.rows.len()));
    // Headers take a line, and all others one.
    let room = usize::from(area.height).saturating_sub(2);
    let cells = columns::cells(by, &chosen, room);
    let all = columns::of(by);
    let shown = fitting(screen, &cells, area.width);
    let cell = |(index, width): &(usize, usize), text: String| {
        let alignment = match all[*index].sort {
            Some(_) => Alignment::Right,
            None => Alignment::Left,
        };
        Cell::from(Text::from(cut(text, *width)).alignment(alignment))
    };
    let header = shown.iter();
    let header = header.map(|column| cell(column, all[column.0].header.to_owned()));
    let header = Row::new(header.collect::<Vec<_>>()).bold();
    let rows = cells.into_iter().map(|mut row| {
        let cells = shown.iter();
        let cells = cells.map(|column| cell(column, std::mem::take(&mut row[column.0])));
        Row::new(cells.collect::<Vec<_>>())
    });
    let widths = shown
        .iter()
        .map(|(_, width)| Constraint::Length(*width as u16));
    let table = Table::new(rows, widths)
        .header(header)
        .column_spacing(GAP as u16);
    frame.render_widget(table, area);
}

/// Columns that fit, by their numbers, with their widths: first names are cut, then columns left out from the end, but for what rows are sorted
/// by.
fn fitting(screen: &Screen, cells: &[Vec<String>], width: u16) -> Vec<(usize, usize)> {
    let columns = columns::of(screen.choice.by);
    let longest = |(index, column): (usize, &Column)| {
        let cells = cells.iter().map(|row| row[index].chars().count());
        (index, cells.chain([column.header.len()]).max().unwrap_or(0))
    };
    let mut shown: Vec<_> = columns.iter().enumerate().map(longest).collect();
    let is_needed = |index: usize| match columns[index].sort {
        None => index < NAMES,
        sort => sort == Some(screen.choice.sort()),
    };
    while shown.iter().map(|(_, width)| width + GAP).sum::<usize>() > usize::from(width) + GAP {
        let words = shown.iter_mut();
        let words = words.filter(|(index, _)| columns[*index].sort.is_none());
        if let Some((_, widest)) = words.max_by_key(|(_, width)| *width)
            && *widest > NAME
        {
            *widest -= 1;
        } else if let Some(spare) = shown.iter().rposition(|(index, _)| !is_needed(*index)) {
            shown.remove(spare);
        } else if shown.len() > NAMES + 1 {
            shown.pop();
        } else {
            break;
        }
    }
    shown
}

/// A name that fits: its end tells more than its beginning.
fn cut(text: String, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text;
    }
    let end = text.chars().skip(length + 1 - width.max(1));
    std::iter::once('…').chain(end).collect()
}

/// Agents that tell nothing, and why.
fn troubles(screen: &Screen) -> Vec<Line<'static>> {
    let silent = screen.picture.silent();
    let mut lines: Vec<_> = silent.map(|(node, why)| format!("{node}: {why}")).collect();
    if lines.len() > TROUBLES {
        let more = lines.len() - (TROUBLES - 1);
        lines.truncate(TROUBLES - 1);
        lines.push(format!("and {more} more agents"));
    }
    lines.into_iter().map(Line::from).collect()
}

fn footer(screen: &Screen) -> Line<'static> {
    if screen.is_typing {
        return Line::from(format!("/{}_  Enter: keep  Esc: all", screen.choice.text));
    }
    let sort = match screen.choice.sort() {
        Sort::Bytes => "bytes",
        Sort::Packets => "packets",
        Sort::Connections => "connections",
        Sort::Drops => "drops",
    };
    let filter = match &*screen.choice.text {
        "" => "/: filter".to_owned(),
        text => format!("/{text}"),
    };
    Line::from(format!(
        "q: quit  Tab: board  s: {sort}  {filter}  p: pause"
    ))
}
