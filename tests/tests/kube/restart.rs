//! An agent that is killed while objects change leaves nothing behind that a fresh one would not have made.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use serde_json::json;
use weir_tests::controlplane::ControlPlane;

use crate::api::{admits, apply_one, delete_one, object, service};
use crate::cluster::{Cluster, eventually};

/// Objects of each kind that come and go.
const OBJECTS: u32 = 6;

#[test]
fn maps_after_a_kill_equal_those_of_a_fresh_agent() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let home = cluster.home("weir");
    let mut agent = cluster.start_agent(&home)?;

    let (stop, steps) = (AtomicBool::new(false), AtomicU32::new(0));
    let control = &cluster.control;
    thread::scope(|scope| -> Result<()> {
        let churning = scope.spawn(|| churn(control, &stop, &steps));
        let mut killing = || -> Result<()> {
            // At several moments of a start: before the lists, amid the first sync, after it.
            for life in [5, 150, 400, 800, 1500] {
                let before = steps.load(Ordering::Relaxed);
                agent.restart()?;
                thread::sleep(Duration::from_millis(life));
                agent.ensure_running()?;
                agent.kill()?;
                eventually("objects change without an agent", || {
                    let now = steps.load(Ordering::Relaxed);
                    let gone_on = now > before + 2 || churning.is_finished();
                    Ok(if gone_on {
                        Ok(())
                    } else {
                        Err(now.to_string())
                    })
                })?;
            }
            Ok(())
        };
        let killed = killing();
        stop.store(true, Ordering::Relaxed);
        let churned = churning.join();
        killed?;
        churned
            .ok()
            .context("the thread that changes objects panicked")?
    })?;

    agent.restart()?;
    cluster.wait_synced(&mut agent, &home)?;
    let other = cluster.home("fresh");
    let mut fresh = cluster.start_agent(&other)?;
    eventually("the maps equal those of a fresh agent", || {
        let (found, wanted) = (cluster.dump(&home)?, cluster.dump(&other)?);
        Ok(if found == wanted {
            Ok(())
        } else {
            Err(format!("{found} instead of {wanted}"))
        })
    })?;
    let dump = cluster.dump(&other)?;
    ensure!(
        ["frontend", "verdict"]
            .iter()
            .all(|&table| dump[table].as_array().is_some_and(|rows| rows.len() > 1)),
        "there is something to compare: {dump}"
    );
    fresh.terminate(Duration::from_secs(10))?;
    cluster.clean_up(&other)?;

    // Without the other one the node goes on as before.
    ensure!(
        cluster.dump(&home)? == dump,
        "cleaning up after one agent changes the other's maps"
    );
    for to in cluster.sockets("stranger") {
        cluster.reaches("client", to, &["stranger"])?;
    }
    agent.ensure_running()?;
    cluster.control.ensure_running()
}

/// Makes, changes and deletes Services and policies until told to stop; a part of them stays.
fn churn(control: &ControlPlane, stop: &AtomicBool, steps: &AtomicU32) -> Result<()> {
    control.block_on(async |client| {
        let mut step = 0;
        // At the end every object has been there.
        while !stop.load(Ordering::Relaxed) || step < 2 * OBJECTS {
            change(&client, step).await?;
            step += 1;
            steps.store(step, Ordering::Relaxed);
        }
        Ok(())
    })
}

async fn change(client: &Client, step: u32) -> Result<()> {
    let name = format!("churn-{}", step % OBJECTS);
    let round = step / OBJECTS;
    let app = ["web", "client", "nobody"][(round % 3) as usize];
    if step % 5 == 4 && round > 1 {
        // Deleted in the round before, perhaps.
        apply_one(client, &service("shop", &name, app)).await?;
        delete_one(client, &object("v1", "Service", "shop", &name)).await?;
    } else {
        apply_one(client, &service("shop", &name, app)).await?;
    }
    let block = json!([{"ipBlock": {"cidr": format!("10.{}.0.0/16", step % 200), "except": [format!("10.{}.1.0/24", step % 200)]}}]);
    let peers = match round % 3 {
        0 => json!([{"podSelector": {"matchLabels": {"app": "client"}}}]),
        1 => json!([{"namespaceSelector": {}}]),
        _ => block,
    };
    apply_one(
        client,
        &admits(
            &name,
            ["web", "client", "nobody"][(step % 3) as usize],
            peers,
        ),
    )
    .await
}
