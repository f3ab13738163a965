//! How many exchanges a client makes with one server, one after the other.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use weir_tests::netns::Place;

use super::echo::{LAST, NEXT};
use super::subject::{Spot, Subject};
use crate::table::median;

/// The longest that one exchange may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an exchange is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A connection, a request, a response, and the end of the connection.
    Connection,
    /// A request and a response.
    Request,
}

impl Style {
    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connect, request, response",
            Self::Request => "request, response",
        }
    }
}

/// What was measured in each round, for each place of the server: direct, by cluster IP, by node port; a second.
#[derive(Default)]
pub(super) struct Rates {
    rounds: Vec<Vec<[f64; 3]>>,
}

impl Rates {
    /// Measures all ways of a cluster once.
    pub(super) fn round(&mut self, subject: &Subject, style: Style, time: Duration) -> Result<()> {
        let spots = subject.spots().iter();
        let round = spots.map(|spot| {
            let mut rates = [0.0; 3];
            for (rate, to) in rates.iter_mut().zip(spot.ways()) {
                *rate = rate_of(subject.client(), to, style, time)
                    .with_context(|| format!("{} at {to}", spot.name))?;
            }
            Ok(rates)
        });
        self.rounds.push(round.collect::<Result<_>>()?);
        Ok(())
    }

    /// A row for each place of the server.
    pub(super) fn rows(&self, subject: &Subject, style: Style) -> Vec<Vec<String>> {
        let row = |(index, spot): (usize, &Spot)| {
            let all: Vec<_> = self.rounds.iter().map(|round| round[index]).collect();
            let rate = |way: usize| {
                let rates: Vec<_> = all.iter().map(|rates| rates[way]).collect();
                format!("{:.0}", median(&rates))
            };
            // Of the same round: the machine is not the same for long.
            let share = |way: usize| {
                let shares: Vec<_> = all.iter().map(|rates| rates[way] / rates[0]).collect();
                format!("{:.1} %", 100.0 * median(&shares))
            };
            vec![
                style.name().to_owned(),
                subject.name().to_owned(),
                spot.name.to_owned(),
                rate(0),
                rate(1),
                share(1),
                rate(2),
                share(2),
            ]
        };
        subject.spots().iter().enumerate().map(row).collect()
    }
}

fn rate_of(client: &Place, to: SocketAddr, style: Style, time: Duration) -> Result<f64> {
    client.run(|| -> Result<f64> {
        let begun = Instant::now();
        let mut made = 0_u32;
        let mut kept = match style {
            Style::Connection => None,
            Style::Request => Some(connect(to)?),
        };
        while begun.elapsed() < time {
            match &mut kept {
                Some(stream) => ask(stream, NEXT)?,
                None => {
                    let mut stream = connect(to)?;
                    ask(&mut stream, LAST)?;
                    // The server ends it.
                    stream.read_exact(&mut [0]).map_or(Ok(()), |()| {
                        Err(io::Error::other("the server says more than it was asked"))
                    })?;
                }
            }
            made += 1;
        }
        Ok(f64::from(made) / begun.elapsed().as_secs_f64())
    })
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
    stream.write_all(&[byte])?;
    stream.read_exact(&mut [0])
}
