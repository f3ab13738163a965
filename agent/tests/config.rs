//! `weir config` and `weir run --config` as a user calls them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Exit code, standard output, standard error.
fn weir(arguments: &[&str], variables: &[(&str, &Path)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    // Nothing of the environment of whoever runs the tests.
    command.env_clear().args(arguments);
    command.envs(variables.iter().copied());
    let output = command.output().expect("the agent's binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code().expect("no signal"),
        text(output.stdout),
        text(output.stderr),
    )
}

fn file(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("config.yaml");
    fs::write(&path, text).expect("write to a directory of the test's own");
    path
}

#[test]
fn each_value_is_printed_with_who_gave_it() {
    let directory = TempDir::new().unwrap();
    let head = "apiVersion: weir/v1alpha1\nkind: WeirConfiguration\n";
    let path = file(
        &directory,
        &format!("{head}nodeName: f\nrunDir: /f\nbpffs: /f\n"),
    );
    let variables = [
        ("WEIR_CONFIG", path.as_path()),
        ("WEIR_NODE_NAME", Path::new("e")),
        ("WEIR_RUN_DIR", Path::new("/e")),
    ];
    let print = ["config", "print", "--effective", "--node-name=g"];
    let (code, out, err) = weir(&print, &variables);
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "nodeName: g # flag --node-name".to_owned(),
        "runDir: /e # environment WEIR_RUN_DIR".to_owned(),
        format!("bpffs: /f # file {}:5", path.display()),
        "attach: auto # default".to_owned(),
    ] {
        assert!(out.lines().any(|one| one == line), "{line}\n{out}");
    }

    let (code, json, _) = weir(&[&print[..], &["-o", "json"]].concat(), &variables);
    let answer: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, 0);
    assert_eq!(answer["kind"], "EffectiveConfiguration");
    assert_eq!(answer["configuration"]["nodeName"], "g");
    assert_eq!(answer["sources"]["bpffs"]["line"], 5);

    // What was printed is a file that says the same.
    let again = file(&directory, &out);
    let (_, second, _) = weir(
        &["config", "print", "--effective"],
        &[("WEIR_CONFIG", &again)],
    );
    let without_sources = |text: &str| -> Vec<String> {
        let values = text.lines().filter_map(|line| line.split(" #").next());
        values.map(str::to_owned).collect()
    };
    assert_eq!(without_sources(&out), without_sources(&second));
}

#[test]
fn mistakes_end_the_program_and_name_who_made_them() {
    let directory = TempDir::new().unwrap();
    let path = file(
        &directory,
        "apiVersion: weir/v1alpha1\nkind: WeirConfiguration\nbpfs: /b\n",
    );
    for command in [&["run"][..], &["config", "check"]] {
        let (code, _, err) = weir(command, &[("WEIR_CONFIG", &path)]);
        assert_eq!(code, 2);
        assert!(
            err.contains("config.yaml:3: unknown key \"bpfs\": is \"bpffs\" meant?"),
            "{err}"
        );

        let (code, _, err) = weir(command, &[("WEIR_FLOW_CAPACITY", Path::new("few"))]);
        assert_eq!(code, 2);
        assert!(
            err.contains("given by the environment: WEIR_FLOW_CAPACITY=few"),
            "{err}"
        );

        let variables = [("WEIR_KUBECONFIG", Path::new("/nonexistent"))];
        let (code, _, err) = weir(command, &variables);
        assert_eq!(code, 2);
        assert!(
            err.contains("the value is from environment WEIR_KUBECONFIG"),
            "{err}"
        );
    }
    // A flag's own mistake is not blamed on the variable that it overrides.
    let flag = ["config", "check", "--flow-capacity=few"];
    let (_, _, err) = weir(&flag, &[("WEIR_FLOW_CAPACITY", Path::new("2048"))]);
    assert!(!err.contains("environment"), "{err}");

    let (code, out, err) = weir(&["config", "check"], &[]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
}

#[test]
fn what_kube_proxy_has_in_vain_is_named_by_the_agent() {
    let directory = TempDir::new().unwrap();
    // The agent reads its configuration, and stops at the address in use: before it touches the kernel.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let path = file(
        &directory,
        &format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
             mode: nftables\nhealthzBindAddress: {address}\n\
             nftables: {{masqueradeAll: true}}\nlogging: {{format: json}}\n"
        ),
    );
    let manifests = format!("--manifests={}", directory.path().display());
    let config = format!("--config={}", path.display());
    let (code, _, err) = weir(&["run", &config, &manifests], &[]);
    assert_eq!(code, 2, "{err}");
    let named: Vec<serde_json::Value> = err
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["fields"]["reason"].is_string())
        .collect();
    let fields: Vec<_> = named.iter().map(|line| &line["fields"]["field"]).collect();
    assert_eq!(fields, ["mode", "nftables.masqueradeAll"]);
    assert_eq!(named[0]["fields"]["value"], "\"nftables\"");

    let (_, out, _) = weir(&["config", "print", "--effective", &config], &[]);
    let line = "# ignored: mode: \"nftables\" of ";
    assert!(out.lines().any(|one| one.starts_with(line)), "{out}");
}
