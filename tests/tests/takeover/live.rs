//! Connections of kube-proxy's time live on, in both directions, and new ones are Weir's.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::fixture::{Fixture, ensure_heard, finish, listen};

/// Long enough for many messages.
const WHILE: Duration = Duration::from_secs(2);

#[test]
fn connections_outlive_kube_proxy_in_mode_nftables() -> Result<()> {
    from_kube_proxy("nftables")
}

#[test]
fn connections_outlive_kube_proxy_in_mode_iptables() -> Result<()> {
    from_kube_proxy("iptables")
}

fn from_kube_proxy(mode: &str) -> Result<()> {
    let Some(mut fixture) = Fixture::new()? else {
        return Ok(());
    };
    fixture.start_proxy(mode)?;
    let open = fixture.open()?;
    let mut clients = listen(&fixture)?;
    thread::sleep(WHILE);

    fixture.start_weir()?;
    let refused = fixture.weir(&["takeover"]).err().context("refused")?;
    ensure!(
        refused.to_string().contains("kube-proxy still runs"),
        "{refused:#}"
    );
    ensure_heard(&fixture, &mut clients)?;
    fixture.stop_proxy()?;
    let said = fixture.weir(&["takeover"])?;
    println!("{said}");
    let rules = fixture.rules()?;
    ensure!(
        !rules.contains("KUBE-SERVICES") && !rules.contains("table ip kube-proxy"),
        "{rules}"
    );
    thread::sleep(WHILE);
    ensure_heard(&fixture, &mut clients)?;
    fixture.wait_served()?;
    let newer = fixture.open()?;

    for (name, report) in finish(open)? {
        report
            .ensure_unharmed()
            .with_context(|| format!("{name}; the agent says:\n{}", fixture.log()))?;
    }

    // The clients that only listen are netfilter's still.
    let refused = fixture
        .weir(&["takeover", "--finish"])
        .err()
        .context("refused")?;
    ensure!(
        refused.to_string().contains("still translates"),
        "{refused:#}"
    );
    ensure_heard(&fixture, &mut clients)?;
    fixture.weir(&["takeover", "--finish", "--force"])?;
    let heard = ensure_heard(&fixture, &mut clients);
    ensure!(
        mode == "iptables" || heard.is_err(),
        "netfilter translates without being kept to it: this test proves nothing"
    );
    thread::sleep(WHILE);
    for (name, report) in finish(newer)? {
        report
            .ensure_unharmed()
            .with_context(|| format!("new: {name}"))?;
    }
    Ok(())
}

/// kube-proxy knows nothing of Weir's connections: what its rules see of them looks like new ones to it, and goes to any backend.
#[test]
fn connections_of_weirs_are_cut_at_once_when_kube_proxy_returns() -> Result<()> {
    let Some(mut fixture) = Fixture::new()? else {
        return Ok(());
    };
    fixture.start_weir()?;
    fixture.wait_served()?;
    let open = fixture.open()?;
    fixture.start_proxy("nftables")?;
    thread::sleep(WHILE);
    fixture.remove_weir()?;
    thread::sleep(WHILE);
    for (name, report) in finish(open)? {
        if name.starts_with("node ") {
            // The socket knows the backend: there is nothing to translate.
            report.ensure_unharmed().context(name)?;
            continue;
        }
        let error = report.error.as_deref().unwrap_or_default();
        ensure!(
            error.contains("reset"),
            "{name} is not cut at once: {report:?}"
        );
    }
    fixture.wait_served()
}
