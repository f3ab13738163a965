//! `weir top`.

mod choice;
mod columns;
mod draw;
mod rates;
mod screen;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};

use self::choice::Choice;
use self::rates::Heard;
use self::screen::Screen;
use super::agents::Said;
use super::args::{OutputFormat, Top, Whom};
use super::{ask, colour, write_on};
use crate::admin::Followed;
use crate::flows::top::Activity;

/// How long somebody who presses a key waits at most.
const KEYS: Duration = Duration::from_millis(100);
/// How much longer than asked for one picture is waited for an agent that is slow.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens while it is shown.
enum Happening {
    /// An agent has told something.
    Said(Said<Followed<Box<Activity>>>),
    /// None does any more.
    Over(anyhow::Error),
    /// The program is to end.
    Stop,
}

/// Shows it, on a screen if there is one.
pub(super) fn execute(asked: &Top) -> Result<()> {
    let interval = asked.interval.unsigned_abs();
    let heard = Heard::new(asked.query.whom.is_of_all());
    let choice = Choice {
        by: asked.by,
        sort: asked.sort,
        scope: asked.scope.clone(),
        text: String::new(),
    };
    let (tell, happenings) = mpsc::channel();
    listen(asked.query.whom.clone(), tell.clone());
    let is_table = asked.query.output == OutputFormat::Table;
    let terminals = io::stdin().is_terminal() && io::stdout().is_terminal();
    if is_table && terminals && !asked.once {
        heed_signals(tell)?;
        return on_screen(choice, heard, &happenings, interval);
    }
    as_text(asked, &choice, heard, &happenings, interval)
}

/// Follows the agents beside everything else.
fn listen(whom: Whom, tell: Sender<Happening>) {
    thread::spawn(move || {
        let each = |said| match tell.send(Happening::Said(said)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        if let Err(error) = ask::follow(&whom, "/v1/top/follow", each) {
            // If nobody is there any more, the program ends.
            let _ = tell.send(Happening::Over(error));
        }
    });
}

/// Ends the program in order, so that the terminal is what it was.
fn heed_signals(tell: Sender<Happening>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    thread::spawn(move || {
        runtime.block_on(async {
            let [terminate, hangup] = [SignalKind::terminate(), SignalKind::hangup()].map(signal);
            let (Ok(mut terminate), Ok(mut hangup)) = (terminate, hangup) else {
                return;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            let _ = tell.send(Happening::Stop);
        });
    });
    Ok(())
}

impl Heard {
    /// Takes in what has happened; `Break` when the program is to end.
    ///
    /// # Errors
    /// When no agent tells anything more.
    fn take_in(&mut self, happening: Happening) -> Result<ControlFlow<()>> {
        match happening {
            Happening::Said(Said::Asked(nodes)) => self.expect(nodes),
            Happening::Said(Said::Line(Followed::Told(activity))) => {
                self.hear(*activity, Instant::now());
            }
            // What is missed is missing in what it is divided by, too.
            Happening::Said(Said::Line(Followed::Lost { .. })) => {}
            Happening::Said(Said::Ended { node, why }) => self.ended(node, why),
            Happening::Over(error) => return Err(error),
            Happening::Stop => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Shows picture after picture until somebody has seen enough. Whatever happens, the terminal gets back what it had.
fn on_screen(
    choice: Choice,
    mut heard: Heard,
    happenings: &Receiver<Happening>,
    interval: Duration,
) -> Result<()> {
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let mut screen = Screen {
        choice,
        ..Screen::default()
    };
    let colours = colour();
    let mut show = || -> Result<()> {
        // The first picture comes as soon as it can.
        let mut next = Instant::now();
        loop {
            while let Ok(happening) = happenings.try_recv() {
                if heard.take_in(happening)?.is_break() {
                    return Ok(());
                }
            }
            let now = Instant::now();
            if now >= next && (screen.picture.time.is_some() || heard.has_news()) {
                screen.show(heard.picture(now));
                next = now + interval;
            }
            terminal.draw(|frame| draw::draw(frame, &screen, colours))?;
            if event::poll(KEYS)?
                && let Event::Key(key) = event::read()?
                && screen.key(key).is_break()
            {
                return Ok(());
            }
        }
    };
    let shown = show();
    let restored = ratatui::try_restore();
    shown?;
    restored.context("cannot give the terminal back")
}

/// Prints picture after picture, or one.
fn as_text(
    asked: &Top,
    choice: &Choice,
    mut heard: Heard,
    happenings: &Receiver<Happening>,
    interval: Duration,
) -> Result<()> {
    loop {
        wait(&mut heard, happenings, interval)?;
        let picture = heard.picture(Instant::now());
        let text = text::text(&picture, choice, asked.rows, asked.query.output, asked.once)?;
        let goes_on = write_on(&text)?;
        if asked.once {
            if picture.nodes.is_empty() {
                bail!("the agent has told nothing: `weir status` says whether it is in sync yet");
            }
            let silent: Vec<_> = picture.silent().collect();
            return match silent.first() {
                None => Ok(()),
                Some((node, why)) => {
                    bail!(
                        "{} of {} agents told nothing; {node}: {why}",
                        silent.len(),
                        picture.nodes.len()
                    )
                }
            };
        }
        if !goes_on {
            return Ok(());
        }
    }
}

/// Until every agent has told of the interval, or has had enough time.
fn wait(heard: &mut Heard, happenings: &Receiver<Happening>, interval: Duration) -> Result<()> {
    let end = Instant::now() + interval + PATIENCE;
    while !heard.is_full(interval) {
        let left = end.saturating_duration_since(Instant::now());
        match happenings.recv_timeout(left) {
            Ok(happening) => {
                if heard.take_in(happening)?.is_break() {
                    break;
                }
            }
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("nobody tells anything")),
        }
    }
    Ok(())
}
