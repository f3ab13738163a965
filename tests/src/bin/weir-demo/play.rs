//! `--keep`: what one can do with the shop.

use crate::Demo;
use crate::shop::NAME;

/// Says how to play, and waits for Ctrl-C.
pub(crate) fn keep(demo: &Demo) {
    let cluster = &demo.shop.cluster;
    let topology = cluster.topology();
    let binary = weir_tests::cluster::weir_binary()
        .map_or_else(|_| "weir".to_owned(), |path| path.display().to_string());
    let run = topology.node("node1").agent_paths().run;
    let pod = |name: &str| topology.pod(name).namespace().path().display().to_string();
    demo.screen.title("Yours to play with, until Ctrl-C");
    let line = |text: &str, command: &str| {
        demo.screen.text(&format!("{text}\n  {command}"));
    };
    line(
        "Manifests: change, add and remove files, agents follow.",
        &format!("ls {}", cluster.manifests().display()),
    );
    line(
        "A shell in a pod's network:",
        &format!("nsenter --net={} sh", pod("frontend")),
    );
    line(
        "A lookup from a backend:",
        &format!(
            "nsenter --net={} dig +short {NAME} @10.96.0.10",
            pod("backend-1")
        ),
    );
    line(
        "A message to a backend, which answers with its name:",
        &format!(
            "nsenter --net={} sh -c 'echo \"{{\\\"number\\\":1}}\" | nc -w1 10.96.0.30 80'",
            pod("frontend")
        ),
    );
    let node = topology.node("node1").namespace().path();
    line(
        "Ask the agent of node1:",
        &format!(
            "export WEIR_RUN_DIR={}\n  {binary} status\n  {binary} explain shop/frontend shop/svc/database:5432",
            run.display()
        ),
    );
    line(
        "Its metrics:",
        &format!(
            "nsenter --net={} curl -s 127.0.0.1:10249/metrics",
            node.display()
        ),
    );
    line(
        "Its log:",
        &format!(
            "tail -f {}",
            topology.node("node1").agent_log("weir").display()
        ),
    );
    demo.stop.wait();
}
