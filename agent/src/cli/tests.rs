use std::ffi::OsString;

use clap::CommandFactory;
use jiff::Timestamp;

use super::args::{Command, ListFormat, MapCommand, ServiceCommand};
use super::{Cli, OutputFormat, in_words, parse};
use crate::flows::{Filter, Outcome};
use crate::model::ObjectName;

fn cli(line: &str) -> Result<Cli, clap::Error> {
    parse(line.split_whitespace().map(OsString::from))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn commands_are_read() {
    let Command::Explain {
        source,
        destination,
        fix,
        query,
    } = cli("weir explain shop/a shop/svc/b:80/TCP -o json --manifests /m --node-name n1")
        .unwrap()
        .command
    else {
        panic!("explain");
    };
    assert_eq!(
        (source.as_str(), destination.as_str(), fix),
        ("shop/a", "shop/svc/b:80/TCP", false)
    );
    assert_eq!(query.live.output, OutputFormat::Json);
    assert_eq!(query.node_name.as_deref(), Some("n1"));

    let Command::Service(ServiceCommand::List { listing, query }) =
        cli("weir service list -n shop -l app!=web,!old -w --no-headers -o wide --run-dir /r")
            .unwrap()
            .command
    else {
        panic!("service list");
    };
    assert!(listing.scope.holds("shop") && !listing.scope.holds("web"));
    let selects = |text: &str| {
        let (key, value) = text.split_once('=').expect("a label");
        let labels = [(key.to_owned(), value.to_owned())].into();
        listing.selector.matches(&labels)
    };
    assert!(selects("app=shop") && !selects("app=web") && !selects("old=1"));
    assert!(listing.watch && listing.headers.no_headers);
    assert_eq!(query.live.output, ListFormat::Wide);
    assert_eq!(query.live.whom.run_dir.to_str(), Some("/r"));

    let Command::Map(MapCommand::Dump { canonical, .. }) =
        cli("weir map dump --canonical").unwrap().command
    else {
        panic!("map dump");
    };
    assert!(canonical);
    for line in [
        "weir run --manifests /m --node-name n1 --run-dir /r",
        "weir init --mount /b",
        "weir status",
        "weir service list -A",
        "weir endpoint list",
        "weir policy list",
        "weir service show shop/back -o json",
        "weir policy show shop/deny --manifests /m",
        "kubectl-weir policy show deny-all --node n1",
        "weir policy coverage -n shop -o yaml",
        "weir history --last 10 --no-headers -o json",
        "weir bundle -o /tmp/b.tar.gz --context c",
        "weir matrix -n shop --port 53/UDP --manifests /m -o json",
        "weir matrix --port 80",
        "weir matrix -o html",
        "weir matrix -A -o svg",
        "weir policy list -w -o yaml --selector team",
        "weir conntrack list -o wide --no-headers",
        "weir conntrack list -w -o json",
        "weir status --no-headers",
        "weir status -w -o json --context c",
        "weir completion bash",
        "weir man /m",
        "weir flows --follow --from shop/ --to 10.0.0.0/8 --verdict dropped --verdict rejected --policy shop/deny --since 5m",
        "weir flows --last 10 --dropped",
        "weir top",
        "weir top --by drops --sort packets -n shop --interval 10s --once --rows 5 --context c -o json",
        "weir check -f a.yaml -f b -R",
        "weir check -f - --manifests /m --replace --pod-cidr 10.1.0.0/16 --allow dns --allow api-server -o sarif",
        "weir doctor --bpffs /b -o json",
        "weir takeover --from kube-proxy --dry-run --fix-forward -o json",
        "weir takeover --finish --force",
        "weir cleanup --bpffs /b",
        "weir version",
    ] {
        cli(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    for (line, code) in [
        ("weir", 2),
        ("weir explain shop/a", 2),
        ("weir service list -n a -A", 2),
        ("weir explain a/b c/d -o xml", 2),
        ("weir explain a/b c/d -o wide", 2),
        ("weir service list -l a>1", 2),
        ("weir service show back", 2),
        ("weir matrix --port 0", 2),
        ("weir matrix --port 80/ICMP", 2),
        ("weir policy show shop/", 2),
        ("weir policy show /deny", 2),
        ("weir policy show shop/deny/1", 2),
        ("weir explain a/b c/d --fix -o json", 2),
        ("weir status --node-name n1", 2),
        ("weir check", 2),
        ("weir check -f a --replace", 2),
        ("weir check -f a --allow nonsense", 2),
        ("weir nonsense", 2),
        ("weir takeover --finish --dry-run", 2),
        ("weir takeover --from docker", 2),
        ("weir --help", 0),
        ("weir --version", 0),
    ] {
        assert_eq!(cli(line).unwrap_err().exit_code(), code, "{line}");
    }
}

#[test]
fn help_shows_the_name_that_it_was_called_by() {
    let plugin = cli("/usr/local/bin/kubectl-weir explain --help")
        .unwrap_err()
        .to_string();
    assert!(plugin.contains("Usage: kubectl weir explain"), "{plugin}");
    let agent = cli("/usr/bin/weir explain --help").unwrap_err().to_string();
    assert!(agent.contains("Usage: weir explain"), "{agent}");
}

#[test]
fn errors_tell_every_cause_once() {
    let refused = std::io::Error::other("refused");
    let error = anyhow::Error::new(refused).context("cannot connect (refused)");
    assert_eq!(
        in_words(&error.context("no answer")),
        "no answer: cannot connect (refused)"
    );
}

#[test]
fn kubectls_plugin_asks_a_cluster_and_weir_where_one_is_named() {
    let of_all = |line: &str| match cli(line).unwrap().command {
        Command::Audit { query } => query.whom.is_of_all(),
        command => panic!("{command:?}"),
    };
    for (line, expected) in [
        ("weir audit", false),
        ("weir audit --context c", true),
        ("weir audit --kubeconfig f", true),
        ("weir audit --context c --node n1", false),
        ("kubectl-weir audit", true),
        ("kubectl-weir audit --node n1", false),
    ] {
        assert_eq!(of_all(line), expected, "{line}");
    }
    let refused = cli("kubectl-weir policy list --manifests d --context c");
    assert!(refused.is_err());
}

#[test]
fn what_flows_are_wanted_is_read() {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let filter = |options: &str| match cli(&format!("weir flows {options}")).unwrap().command {
        Command::Flows { wanted, .. } => wanted.filter(now),
        command => panic!("{command:?}"),
    };
    assert_eq!(filter(""), Filter::default());
    assert_eq!(
        filter("--dropped --since 5m --policy shop/deny").since,
        Some("2026-01-02T02:59:05Z".parse().unwrap())
    );
    assert_eq!(
        filter("--dropped").verdicts,
        [Outcome::Dropped, Outcome::Rejected]
    );
    assert_eq!(filter("--verdict rejected").verdicts, [Outcome::Rejected]);
    for (given, expected) in [
        ("shop/deny", ObjectName::new("shop", "deny")),
        ("deny-all", ObjectName::cluster("deny-all")),
    ] {
        assert_eq!(filter(&format!("--policy {given}")).policy, Some(expected));
    }
    for refused in [
        "--from shop",
        "--since yesterday",
        "--verdict lost",
        "--follow --last 3",
    ] {
        assert!(cli(&format!("weir flows {refused}")).is_err(), "{refused}");
    }
}
