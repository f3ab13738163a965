//! Connections to a Service go to all its ready backends, and stay where they are.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use weir_tests::probe::{Connections, Probe, Stream, StreamOptions, connections};

use crate::Demo;
use crate::screen::Cell;
use crate::shop::service;

const BACKENDS: [&str; 3] = ["backend-1", "backend-2", "backend-3"];

/// Connections of each family: that one of three backends gets none of these has a chance of one in ten to the tenth.
const COUNT: u32 = 60;

/// The backend that turns unready.
const LEAVING: &str = "backend-1";

pub(super) fn spread(demo: &mut Demo) -> Result<()> {
    let seen = count(demo)?;
    show(demo, &seen);
    for backend in BACKENDS {
        let served = seen.iter().all(|seen| seen.answered.contains_key(backend));
        demo.ledger.note_true(
            &format!("{backend} takes connections of both families"),
            served,
        );
    }
    note_all_answered(demo, &seen);
    Ok(())
}

pub(super) fn unready(demo: &mut Demo) -> Result<()> {
    demo.screen.text(&format!(
        "{LEAVING} fails its readiness probe while 16 connections through the Service are in use."
    ));
    let client = demo.shop.pod("frontend");
    let mut streams = Vec::new();
    for to in service("backend", 80)? {
        for _ in 0..8 {
            streams.push(Stream::start(
                client,
                Probe::tcp(to),
                StreamOptions::default(),
            )?);
        }
    }
    demo.shop.cluster.set_ready(LEAVING, false)?;
    demo.shop.cluster.settle()?;
    let seen = count(demo)?;
    std::thread::sleep(Duration::from_millis(200));
    let reports = streams
        .into_iter()
        .map(Stream::finish)
        .collect::<Result<Vec<_>>>()?;
    demo.shop.cluster.set_ready(LEAVING, true)?;
    demo.shop.cluster.settle()?;

    show(demo, &seen);
    let harmed = reports
        .iter()
        .filter(|report| report.ensure_unharmed().is_err())
        .count();
    let on_leaving = reports
        .iter()
        .filter(|report| report.identities.contains(LEAVING))
        .count();
    let messages: u64 = reports.iter().map(|report| report.answered).sum();
    demo.screen.text(&format!(
        "{} connections in use, {on_leaving} of them to {LEAVING}: {messages} messages answered, {harmed} connections lost.",
        reports.len()
    ));
    let none_new = seen.iter().all(|seen| !seen.answered.contains_key(LEAVING));
    demo.ledger
        .note_true("an unready backend gets no new connection", none_new);
    demo.ledger.note(
        "connections lost as a backend turned unready",
        "0",
        &harmed.to_string(),
    );
    note_all_answered(demo, &seen);
    Ok(())
}

/// Connections of each family to the backends' Service.
fn count(demo: &Demo) -> Result<Vec<Connections>> {
    let client = demo.shop.pod("frontend");
    let made = |to: &SocketAddr| connections(client, *to, COUNT);
    Ok(service("backend", 80)?.iter().map(made).collect())
}

fn show(demo: &Demo, seen: &[Connections]) {
    let row = |backend: &&str| {
        let of = |seen: &Connections| seen.answered.get(*backend).copied().unwrap_or_default();
        let bar = "#".repeat(seen.iter().map(of).sum::<u64>() as usize / 2);
        let mut row: Vec<Cell> = vec![(*backend).into(), demo.shop.pod(backend).node().into()];
        row.extend(seen.iter().map(|seen| of(seen).to_string().into()));
        row.push(Cell::good(bar));
        row
    };
    let rows: Vec<_> = BACKENDS.iter().map(row).collect();
    demo.screen
        .table(&["BACKEND", "NODE", "IPV4", "IPV6", "CONNECTIONS"], &rows);
}

fn note_all_answered(demo: &mut Demo, seen: &[Connections]) {
    let answered: u64 = seen.iter().map(Connections::made).sum();
    demo.ledger.note(
        "new connections answered",
        &(2 * COUNT).to_string(),
        &answered.to_string(),
    );
}
