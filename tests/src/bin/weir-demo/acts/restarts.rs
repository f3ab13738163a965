//! The data plane goes on without its agent.

use std::time::Duration;

use anyhow::Result;
use weir_tests::probe::{Load, LoadReport, Probe};

use crate::Demo;
use crate::ledger::compare;
use crate::screen::Cell;
use crate::shop::service;

/// How often each agent is killed.
const KILLS: usize = 5;

pub(super) fn play(demo: &mut Demo) -> Result<()> {
    let (backend, database) = (service("backend", 80)?, service("database", 5432)?);
    let names = ["IPv4", "IPv6"];
    let targets = |addresses: &[std::net::SocketAddr]| -> Vec<_> {
        names
            .into_iter()
            .zip(addresses.iter().map(|&to| Probe::tcp(to)))
            .collect()
    };
    let mut load = Load::start(demo.shop.pod("frontend"), &targets(&backend))?;
    load.add(demo.shop.pod("backend-1"), &targets(&database))?;
    let mut kills = 0;
    for _ in 0..KILLS {
        for node in demo.shop.cluster.running() {
            demo.stop.check()?;
            demo.shop.cluster.agent(&node).kill()?;
            // Without any agent for a moment.
            std::thread::sleep(Duration::from_millis(50));
            demo.shop.cluster.agent(&node).restart()?;
            demo.shop.cluster.wait_ready(&node)?;
            kills += 1;
        }
    }
    demo.shop.cluster.settle()?;
    let report = load.finish()?;
    demo.screen.text(&format!(
        "{kills} times an agent got SIGKILL and was started again."
    ));
    show(demo, &report);
    demo.ledger.note(
        "agents killed and started again",
        &(2 * KILLS).to_string(),
        &kills.to_string(),
    );
    let harmed = report
        .ensure_unharmed()
        .map_or_else(|error| format!("{error:#}"), |()| "none".to_owned());
    demo.ledger
        .note("connections harmed by that", "none", &harmed);
    Ok(())
}

fn show(demo: &Demo, report: &LoadReport) {
    let pairs = [
        "frontend > backend",
        "frontend > backend",
        "backend-1 > database",
        "backend-1 > database",
    ];
    let mut rows = Vec::new();
    for (((family, stream), (_, new)), pair) in
        report.streams.iter().zip(&report.connections).zip(pairs)
    {
        rows.push(vec![
            Cell::from(pair),
            family.as_str().into(),
            stream.answered.to_string().into(),
            compare("0", &stream.lost.to_string()),
            format!("{} ms", stream.slowest.as_millis()).into(),
            new.made().to_string().into(),
            compare("0", &new.failed.len().to_string()),
            format!("{} ms", new.slowest.as_millis()).into(),
        ]);
    }
    let head = [
        "CONNECTIONS",
        "FAMILY",
        "MESSAGES",
        "LOST",
        "SLOWEST",
        "NEW CONNECTIONS",
        "FAILED",
        "SLOWEST",
    ];
    demo.screen.table(&head, &rows);
}
