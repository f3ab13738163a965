//! Layers, and what is wrong with files.

use std::fs;
use std::path::Path;

use clap::{Args, Command, FromArgMatches};

use crate::config::{Effective, Source};
use crate::model::AttachMode;

/// The configuration of a command line; the node's name has PATH for its environment variable, which is always set.
fn effective(arguments: &[&str]) -> Result<Effective, String> {
    let command = Effective::augment_args(Command::new("weir").no_binary_name(true))
        .mut_args(|option| option.env(None::<&'static str>))
        .mut_arg("node_name", |option| option.env("PATH"));
    command
        .try_get_matches_from(arguments)
        .and_then(|matches| Effective::from_arg_matches(&matches))
        .map_err(|error| error.to_string())
}

/// The same with a file of this text after apiVersion and kind, which are two lines.
fn with_file(text: &str, flags: &[&str]) -> Result<Effective, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.yaml");
    let head = "apiVersion: weir/v1alpha1\nkind: WeirConfiguration\n";
    fs::write(&path, format!("{head}{text}")).unwrap();
    let given = with_path(&path, flags);
    let shown = path.display().to_string();
    given.map_err(|error| error.replace(&shown, "weir.yaml"))
}

fn with_path(path: &Path, flags: &[&str]) -> Result<Effective, String> {
    let flag = format!("--config={}", path.display());
    effective(&[&[flag.as_str()], flags].concat())
}

fn source(effective: &Effective, key: &str) -> Source {
    let setting = effective
        .settings
        .iter()
        .find(|one| one.option.key() == key);
    setting.expect(key).source.clone()
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let text = "nodeName: from-file\nattach: clsact\nflowCapacity: 2048\napiServers: [https://a, https://b]\n";
    let given = with_file(text, &["--attach=tcx"]).unwrap();
    assert_eq!(given.config.attach, AttachMode::Tcx);
    assert_eq!(source(&given, "attach"), Source::Flag("--attach".into()));
    assert_eq!(given.config.node_name, std::env::var("PATH").ok());
    assert_eq!(
        source(&given, "nodeName"),
        Source::Environment("WEIR_NODE_NAME".into())
    );
    assert_eq!(given.config.flow_capacity, 2048);
    let Source::File(place) = source(&given, "flowCapacity") else {
        panic!("{}", source(&given, "flowCapacity"));
    };
    assert_eq!(
        (place.line, place.field.as_str()),
        (Some(5), "flowCapacity")
    );
    assert_eq!(given.config.api_servers, ["https://a", "https://b"]);
    assert_eq!(given.config.event_sample, 0);
    assert_eq!(source(&given, "eventSample"), Source::Default);

    let flags = ["--attach=tcx", "--node-name=n1", "--api-server=https://c"];
    let given = with_file(text, &flags).unwrap();
    assert_eq!(given.config.node_name.as_deref(), Some("n1"));
    assert_eq!(given.config.api_servers, ["https://c"]);
}

#[test]
fn null_is_as_if_the_key_were_not_there() {
    let given = with_file("bpffs: null\nkubeconfig:\napiServers: null\n", &[]).unwrap();
    for key in ["bpffs", "kubeconfig", "apiServers"] {
        assert_eq!(source(&given, key), Source::Default, "{key}");
    }
    assert_eq!(given.config.bpffs, Path::new(crate::config::BPFFS));
}

#[test]
fn mistakes_in_a_file_name_line_key_and_form() {
    for (text, message) in [
        (
            "\nflowCapcity: 1",
            "weir.yaml:4: unknown key \"flowCapcity\": is \"flowCapacity\" meant?",
        ),
        ("LogLevel: info", "is \"logLevel\" meant?"),
        ("apiServer: https://a", "is \"apiServers\" meant?"),
        (
            "zzz: 1",
            "unknown key \"zzz\": known are kubeconfig, apiServers,",
        ),
        (
            "flowCapacity: many",
            "weir.yaml:3: flowCapacity cannot be \"many\": it must be a whole number",
        ),
        (
            "flowCapacity: \"2048\"",
            "flowCapacity cannot be \"2048\": it must be a whole number",
        ),
        ("flowCapacity: 2048.5", "it must be a whole number"),
        (
            "flowCapacity: 10",
            "flowCapacity cannot be 10: 10 is not in 1024..=16777216",
        ),
        ("flowCapacity: -1", "-1 is not in 1024..=16777216"),
        (
            "nodeName: 7",
            "nodeName cannot be 7: it must be a text (NAME)",
        ),
        (
            "nodeName: true",
            "nodeName cannot be true: it must be a text",
        ),
        (
            "bpffs: \"\"",
            "bpffs cannot be \"\": it must be a text (DIR)",
        ),
        (
            "bpffs: {a: b}",
            "bpffs cannot be {\"a\":\"b\"}: it must be a text",
        ),
        (
            "apiServers: https://a",
            "apiServers cannot be \"https://a\": it must be a list of texts (each URL)",
        ),
        ("apiServers: [1]", "it must be a list of texts"),
        (
            "logFormat: xml",
            "logFormat cannot be \"xml\": it must be one of text, json",
        ),
        ("attach: tc", "`tc` is none of auto, tcx, clsact"),
        (
            "healthzAddress: \":10256\"",
            "healthzAddress cannot be \":10256\": invalid socket address syntax",
        ),
        (
            "bpffs: /a\nbpffs: /b",
            "weir.yaml is not one document of YAML: duplicate",
        ),
        ("---\nbpffs: /a", "weir.yaml is not one document of YAML"),
        ("bpffs: [", "weir.yaml is not one document of YAML"),
        (
            "kubeconfig: /k\nmanifests: /m",
            "kubeconfig (file weir.yaml:3) and manifests (file weir.yaml:4) cannot be used together",
        ),
    ] {
        let error = with_file(text, &[]).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
    let error = with_file("kubeconfig: /k", &["--manifests=/m"]).unwrap_err();
    let both = "kubeconfig (file weir.yaml:3) and manifests (flag --manifests)";
    assert!(error.contains(both), "{error}");
}

#[test]
fn a_document_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.yaml");
    for (text, message) in [
        ("", "is of apiVersion missing, kind missing"),
        ("kind: WeirConfiguration", "apiVersion missing"),
        (
            "apiVersion: weir/v2\nkind: WeirConfiguration",
            "weir/v2, kind WeirConfiguration; a configuration is of apiVersion weir/v1alpha1",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap",
            "of kubeproxy.config.k8s.io/v1alpha1, KubeProxyConfiguration",
        ),
        ("- a", "not one document of YAML"),
    ] {
        fs::write(&path, text).unwrap();
        let error = with_path(&path, &[]).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
    let error = with_path(&directory.path().join("none"), &[]).unwrap_err();
    assert!(error.contains("is --config right?"), "{error}");
}

#[test]
fn what_cannot_be_used_is_told_with_who_said_so() {
    let from_file = with_file("\nkubeconfig: /nonexistent", &[]).unwrap();
    let error = from_file.validate().unwrap_err().to_string();
    let message = "--kubeconfig /nonexistent is no file that can be read (the value is from file ";
    assert!(error.starts_with(message), "{error}");
    assert!(error.ends_with("weir.yaml:4)"), "{error}");

    let from_flag = effective(&["--kubeconfig=/nonexistent"]).unwrap();
    let error = from_flag.validate().unwrap_err().to_string();
    assert!(error.ends_with("is no file that can be read"), "{error}");

    let elsewhere = with_file("cgroupRoot: /proc", &[]).unwrap();
    let error = elsewhere.validate().unwrap_err().to_string();
    assert!(error.contains("in no cgroup2 hierarchy"), "{error}");
    assert!(error.contains("weir.yaml:3)"), "{error}");
}
