//! The data plane goes on as it is while agents die and come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use weir_tests::probe::{Load, Probe};
use weir_tests::random::Random;

use crate::fixture::{FEW, Fixture, PORT, each, every_way, service, vip};

/// How often an agent is killed.
const KILLS: u32 = 50;
/// The same with `cargo xtask soak`.
const SOAK_KILLS: u32 = 500;

/// Longest life of an agent: some are killed before their first sync, some after.
const LIFE: usize = 500;

/// Only `client` may talk to the pods of tier `back`.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: back, namespace: default}
spec:
  podSelector: {matchLabels: {tier: back}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 8080, protocol: TCP}, {port: 8080, protocol: UDP}]
";

#[test]
fn nobody_notices_that_agents_are_killed() -> Result<()> {
    assert_eq!(PORT, 8080, "as in the policy");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    each(&FEW, |variant| {
        let seed = now.as_secs();
        println!("kills at moments of seed {seed}");
        let mut random = Random::new(seed);
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("policy.yaml", POLICY)?;
        fixture.ensure_silence("other", weir_tests::probe::Protocol::Tcp, vip("back", 80))?;

        let load = Load::start(&fixture.place("client"), &every_way())?;
        let intruder = Intruder::start(&fixture, "other", fixture.server("near"))?;
        let kills = if weir_tests::soaks() {
            SOAK_KILLS
        } else {
            KILLS
        };
        for kill in 0..kills {
            let node = random.pick(&["node1", "node2"]);
            fixture.cluster.agent(node).restart()?;
            // Something to carry out, for the agent that starts.
            churn(&mut fixture, kill)?;
            thread::sleep(Duration::from_millis(random.below(LIFE) as u64));
        }
        for node in ["node1", "node2"] {
            fixture.cluster.wait_ready(node)?;
        }
        fixture.cluster.settle()?;
        load.finish()?.ensure_unharmed()?;
        let tries = intruder.finish()?;
        ensure!(tries > 20, "the intruder tried {tries} times only");
        Ok(())
    })
}

/// Changes something that no connection of the test depends on: a Service, a policy, the readiness of a backend.
fn churn(fixture: &mut Fixture, kill: u32) -> Result<()> {
    let even = kill.is_multiple_of(2);
    fixture.cluster.apply(
        "churn.yaml",
        &service("churn", "app", if even { "far" } else { "near" }, 40),
    )?;
    let policy = POLICY
        .replace("name: back", "name: churn")
        .replace("app: client", &format!("app: nobody-{kill}"));
    fixture.cluster.apply("churn-policy.yaml", &policy)?;
    fixture.cluster.set_ready("spare", even)
}

/// One who is not let in, and tries all the time.
pub(crate) struct Intruder {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<u32>>>,
}

impl Drop for Intruder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed for another reason.
            let _ = thread.join();
        }
    }
}

impl Intruder {
    pub(crate) fn start(fixture: &Fixture, client: &str, to: [SocketAddr; 2]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, place) = (Arc::clone(&stop), fixture.place(client));
        let thread = thread::spawn(move || {
            let mut tries = 0;
            while !flag.load(Ordering::Relaxed) {
                for to in to {
                    let outcome = Probe::udp(to)
                        .timeout(Duration::from_millis(50))
                        .run(&place);
                    ensure!(
                        outcome.identity().is_none(),
                        "the intruder got in: {outcome:?}"
                    );
                    let outcome = Probe::tcp(to)
                        .timeout(Duration::from_millis(50))
                        .run(&place);
                    ensure!(
                        outcome.identity().is_none(),
                        "the intruder got in: {outcome:?}"
                    );
                    tries += 2;
                }
            }
            Ok(tries)
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    pub(crate) fn finish(mut self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a thread is joined once");
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
