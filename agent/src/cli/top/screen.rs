//! What keys do.

use std::ops::ControlFlow;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::choice::Choice;
use super::rates::Picture;
use crate::cli::args::By;

/// Rows that a page key moves by.
const PAGE: usize = 10;

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct Screen {
    pub(super) choice: Choice,
    pub(super) picture: Picture,
    /// It stays as it is.
    pub(super) is_paused: bool,
    /// Keys go into the filter.
    pub(super) is_typing: bool,
    /// The first row that is shown.
    pub(super) first: usize,
}

impl Screen {
    /// A new picture is there.
    pub(super) fn show(&mut self, picture: Picture) {
        if !self.is_paused {
            self.picture = picture;
        }
    }

    /// Somebody has pressed a key; `Break` if that ends it all.
    pub(super) fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        if key.kind == KeyEventKind::Release {
            return ControlFlow::Continue(());
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return ControlFlow::Break(());
        }
        if self.is_typing {
            self.type_key(key.code);
            return ControlFlow::Continue(());
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(By::ALL.len() - 1),
            KeyCode::Char('s') => self.choice.sort = self.choice.sort.next(),
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => {
                self.choice.text.clear();
                self.is_typing = true;
            }
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::PageDown => self.scroll(PAGE),
            KeyCode::Up | KeyCode::Char('k') => self.first = self.first.saturating_sub(1),
            KeyCode::PageUp => self.first = self.first.saturating_sub(PAGE),
            KeyCode::Home => self.first = 0,
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn type_key(&mut self, key: KeyCode) {
        let text = &mut self.choice.text;
        match key {
            KeyCode::Char(character) => text.push(character),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                text.clear();
                self.is_typing = false;
            }
            _ => {}
        }
        self.first = 0;
    }

    fn turn(&mut self, boards: usize) {
        let board = (self.choice.by as usize + boards) % By::ALL.len();
        self.choice.by = By::ALL[board];
        self.first = 0;
    }

    fn scroll(&mut self, rows: usize) {
        let last = self.choice.of(&self.picture).rows.len().saturating_sub(1);
        self.first = (self.first + rows).min(last);
    }
}
