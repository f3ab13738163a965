//! Titles, texts and tables; colours only for a terminal.

use std::io::{IsTerminal as _, stdout};

use anstyle::{AnsiColor, Style};

/// One field of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// As it was to be.
    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self::styled(text, AnsiColor::Green.on_default())
    }

    /// As it was to be, and of no interest.
    pub(crate) fn quiet(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new().dimmed())
    }

    /// Not as it was to be.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::styled(text, AnsiColor::Red.on_default().bold())
    }

    fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// Standard output.
pub(crate) struct Screen {
    colours: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            colours: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// The head of an act.
    pub(crate) fn title(&self, text: &str) {
        println!("\n{}", self.paint(text, Style::new().bold().underline()));
    }

    /// A paragraph, with an empty line before it.
    #[expect(clippy::unused_self, reason = "what is shown goes through the screen")]
    pub(crate) fn text(&self, text: &str) {
        println!("\n{}", text.trim_end());
    }

    /// What a command printed, under the command.
    pub(crate) fn command(&self, command: &str, output: &str) {
        println!(
            "\n{}",
            self.paint(&format!("$ {command}"), Style::new().bold())
        );
        for line in output.trim_end().lines() {
            println!(
                "{}",
                self.paint(
                    format!("  | {line}").trim_end(),
                    AnsiColor::Cyan.on_default()
                )
            );
        }
    }

    /// A table with aligned columns.
    pub(crate) fn table(&self, head: &[&str], rows: &[Vec<Cell>]) {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.text.chars().count()).max();
            widest.unwrap_or_default().max(head[column].chars().count())
        };
        let widths: Vec<_> = (0..head.len()).map(width).collect();
        let line = |cells: &[Cell]| {
            let mut line = String::from("  ");
            for (n, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let last = n + 1 == cells.len();
                let padding = if last {
                    0
                } else {
                    width + 3 - cell.text.chars().count()
                };
                line += &self.paint(&cell.text, cell.style);
                line += &" ".repeat(padding);
            }
            line
        };
        println!();
        let head: Vec<_> = head
            .iter()
            .map(|&text| Cell::styled(text, Style::new().bold()))
            .collect();
        println!("{}", line(&head));
        for row in rows {
            println!("{}", line(row));
        }
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.colours {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}
