//! Policies for which a node has no room.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_tests::cluster::devices;
use weir_tests::probe::Protocol::Tcp;

use crate::fixture::{ALL, Fixture, each};

const PATIENCE: Duration = Duration::from_secs(60);

/// Policies for the pods of tier `back`, each with a part of every other port of every protocol: all of them are more than a row has room for.
fn huge() -> impl Iterator<Item = (String, String)> {
    let parts = ["TCP", "UDP", "SCTP"].into_iter();
    let parts = parts.flat_map(|protocol| [(protocol, 1), (protocol, 32_769)]);
    parts.enumerate().map(|(number, (protocol, first))| {
        let ports: String = (first..first + 32_767_u32)
            .step_by(2)
            .map(|port| format!("    - {{protocol: {protocol}, port: {port}}}\n"))
            .collect();
        let yaml = format!(
            "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: huge-{number}, namespace: default}}
spec:
  podSelector: {{matchLabels: {{tier: back}}}}
  ingress:
  - ports:
{ports}"
        );
        (format!("huge-{number}.yaml"), yaml)
    })
}

/// What holds before and after: `client` may talk to the pods of tier `back`.
const FORMER: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: former, namespace: default}
spec:
  podSelector: {matchLabels: {tier: back}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
";

fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < end, "still not: {what}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn pods_that_come_while_policies_do_not_fit_are_isolated() -> Result<()> {
    each(&[ALL[0]], |variant| {
        let mut fixture = Fixture::new(variant)?;
        fixture.apply("former.yaml", FORMER)?;
        for (file, yaml) in huge() {
            fixture.cluster.apply(&file, &yaml)?;
        }
        eventually("a policy is refused by name", || {
            let status = fixture.cluster.status("node2")?;
            let rejections = status["rejections"].as_array().into_iter().flatten();
            let mut names = rejections.filter_map(|it| it["name"].as_str());
            Ok(names.any(|name| name.starts_with("default/huge-")))
        })?;
        // Pods of before are as they were.
        fixture.ensure_reaches("client", Tcp, fixture.server("far"), &["far"])?;
        fixture.add("late", &[("tier", "back")])?;
        let veth = fixture.cluster.topology().pod("late").veth().to_owned();
        eventually("the new pod's device has programs", || {
            Ok(devices(&fixture.cluster.status("node2")?).contains(&veth))
        })?;
        fixture.ensure_silence("client", Tcp, fixture.server("late"))?;
        fixture.ensure_silence("spare", Tcp, fixture.server("late"))?;
        // Only its ingress should be isolated.
        fixture.ensure_reaches("late", Tcp, fixture.server("client"), &["client"])?;
        for (file, _) in huge() {
            fixture.cluster.delete(&file)?;
        }
        fixture.cluster.settle()?;
        fixture.ensure_reaches("client", Tcp, fixture.server("late"), &["late"])
    })
}
