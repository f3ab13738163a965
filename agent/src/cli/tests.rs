use std::ffi::OsString;

use clap::CommandFactory;

use super::args::{Command, MapCommand, ServiceCommand};
use super::{Cli, OutputFormat, in_words, parse};

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

    let Command::Service(ServiceCommand::List { scope, query }) =
        cli("weir service list -n shop --run-dir /r")
            .unwrap()
            .command
    else {
        panic!("service list");
    };
    assert!(scope.holds("shop") && !scope.holds("web"));
    assert_eq!(query.live.run_dir.to_str(), Some("/r"));

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
        "weir conntrack list -o json",
        "weir flows --last 10 --dropped",
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
