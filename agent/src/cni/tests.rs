//! Each command of the specification, in each of its versions, against an agent that answers as told.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Announcement, Answer, Code, Environment, Failure, Request, SUPPORTED, Store, run, socket,
};
use crate::model::{Attachment, ObjectName, Sandbox};

/// Results of the plugins before, as those versions have them.
const RESULTS: [(&str, &str); 3] = [
    (
        "0.4.0",
        r#"{"cniVersion":"0.4.0","interfaces":[{"name":"cni0","mac":"aa:00:00:00:00:01"},{"name":"veth1","mac":"aa:00:00:00:00:02"},{"name":"eth0","mac":"aa:00:00:00:00:03","sandbox":"/run/netns/x"}],"ips":[{"version":"4","interface":2,"address":"10.1.0.7/24","gateway":"10.1.0.1"},{"version":"6","interface":2,"address":"fd00::7/64"}],"dns":{}}"#,
    ),
    (
        "1.0.0",
        r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/x"},{"name":"other","sandbox":"/run/netns/x"}],"ips":[{"interface":2,"address":"10.1.0.7/24"},{"interface":3,"address":"192.0.2.1/24"},{"address":"fd00::7/64"}],"dns":{}}"#,
    ),
    (
        "1.1.0",
        r#"{ "ips":[{"interface":2,"address":"10.1.0.7/24"},{"interface":2,"address":"fd00::7/64"}], "cniVersion":"1.1.0","interfaces":[{"name":"cni0","mtu":1500},{"name":"veth1","socketPath":""},{"name":"eth0","mtu":1450,"sandbox":"/run/netns/x"}],"later":{"z":1,"a":2}}"#,
    ),
];

/// A run directory, perhaps with an agent.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    /// Has the next request answered so; gives it back when joined.
    fn agent(&self, answer: Answer) -> thread::JoinHandle<Request> {
        let listener = UnixListener::bind(socket(self.path())).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            let mut read = BufReader::new(stream.try_clone().unwrap());
            read.read_line(&mut line).unwrap();
            let answer = serde_json::to_string(&answer).unwrap();
            writeln!(stream, "{answer}").unwrap();
            serde_json::from_str(&line).unwrap()
        })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A configuration of this version, with these fields besides those it has.
    fn config(&self, version: &str, fields: &Value) -> String {
        let mut config = json!({
            "cniVersion": version,
            "name": "pods",
            "type": "weir-cni",
            "runDir": self.path(),
            "waitSeconds": 0,
        });
        let fields = fields.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(fields);
        config.to_string()
    }

    /// The same with a result of the plugins before, whose text stays as it is.
    fn chained(&self, version: &str, result: &str, fields: &Value) -> String {
        let config = self.config(version, fields);
        let (config, _) = config.rsplit_once('}').unwrap();
        format!("{config},\"prevResult\":{result}}}")
    }
}

/// Why a command fails.
fn failure(command: &str, config: &str) -> Failure {
    run(&environment(command, &[]), config.as_bytes()).unwrap_err()
}

/// The environment of a command for a pod, with these variables instead.
fn environment(command: &str, other: &[(&str, &str)]) -> Environment {
    let usual = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "abc123"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=0a1b",
        ),
    ];
    Environment::read(|name| {
        let find = |pairs: &[(&str, &str)]| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        find(other).or_else(|| find(&usual))
    })
}

fn attachment() -> Attachment {
    Attachment {
        container: "abc123".to_owned(),
        interface: "eth0".to_owned(),
    }
}

fn sandbox() -> Sandbox {
    Sandbox {
        attachment: attachment(),
        network: "pods".to_owned(),
        pod: ObjectName::new("shop", "web-0"),
        uid: "0a1b".to_owned(),
        addresses: ["10.1.0.7", "fd00::7"].map(|ip| ip.parse().unwrap()).into(),
        device: None,
    }
}

#[test]
fn add_announces_the_pod_and_passes_the_result_on_byte_for_byte() {
    for (version, result) in RESULTS {
        let node = Node::new();
        let agent = node.agent(Answer::Done);
        let config = node.chained(version, result, &json!({}));
        let told = run(&environment("ADD", &[]), config.as_bytes()).unwrap();
        assert_eq!(told, result);
        let Request::Add(announced) = agent.join().unwrap() else {
            panic!("another request");
        };
        assert_eq!(announced.interfaces, ["cni0", "veth1"], "{version}");
        assert_eq!(announced.sandbox(None), sandbox(), "{version}");
    }
}

#[test]
fn the_longest_wait_of_all_is_no_reason_to_fail() {
    let node = Node::new();
    let agent = node.agent(Answer::Done);
    let config = node.chained("1.0.0", RESULTS[1].1, &json!({"waitSeconds": u64::MAX}));
    let result = run(&environment("ADD", &[]), config.as_bytes()).unwrap();
    assert_eq!(result, RESULTS[1].1);
    assert!(matches!(agent.join().unwrap(), Request::Add(_)));
}

#[test]
fn a_start_fails_in_the_form_of_the_specification() {
    let (version, result) = RESULTS[1];
    for (answer, code, details) in [
        (
            Some(Answer::Waiting {
                why: "not yet".to_owned(),
            }),
            Code::TryAgain,
            "not yet",
        ),
        (Some(Answer::Unknown), Code::TryAgain, "another one"),
        (None, Code::TryAgain, "no agent answers on"),
    ] {
        let node = Node::new();
        let agent = answer.clone().map(|answer| node.agent(answer));
        let failed = failure("ADD", &node.chained(version, result, &json!({})));
        assert_eq!(failed.code, code, "{answer:?}");
        assert!(failed.details.contains(details), "{failed:?}");
        if let Some(agent) = agent {
            agent.join().unwrap();
        }
    }
    let failed = Failure::new(Code::TryAgain, "no", "because");
    assert_eq!(
        failed.to_json("1.0.0"),
        r#"{"cniVersion":"1.0.0","code":11,"msg":"no","details":"because"}"#
    );
}

#[test]
fn a_start_that_may_proceed_leaves_the_pod_to_the_next_agent() {
    let (version, result) = RESULTS[0];
    let node = Node::new();
    let fields = json!({"whenAgentIsDown": "proceed"});
    let config = node.chained(version, result, &fields);
    let told = run(&environment("ADD", &[]), config.as_bytes()).unwrap();
    assert_eq!(told, result);
    let store = Store::new(node.path());
    assert_eq!(store.load().unwrap(), [sandbox()]);
    // An agent that waits is not down.
    let agent = node.agent(Answer::Waiting { why: String::new() });
    assert_eq!(failure("ADD", &config).code, Code::TryAgain);
    agent.join().unwrap();
}

#[test]
fn what_is_no_pod_is_passed_on_and_nobody_hears_of_it() {
    let (version, result) = RESULTS[2];
    let node = Node::new();
    let config = node.chained(version, result, &json!({}));
    for args in ["", "IgnoreUnknown=1", "K8S_POD_NAMESPACE=a;K8S_POD_NAME="] {
        let environment = environment("ADD", &[("CNI_ARGS", args)]);
        assert_eq!(run(&environment, config.as_bytes()).unwrap(), result);
    }
    let without = r#"{"cniVersion":"1.1.0"}"#;
    let config = node.chained(version, without, &json!({}));
    assert_eq!(
        run(&environment("ADD", &[]), config.as_bytes()).unwrap(),
        without
    );
}

#[test]
fn check_del_and_gc_say_what_they_are_about() {
    let (version, result) = RESULTS[1];
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "abc123", "ifname": "eth0"}]});
    for (command, fields, wanted) in [
        ("CHECK", json!({}), Request::Check(attachment())),
        ("DEL", json!({}), Request::Del(attachment())),
        (
            "GC",
            valid,
            Request::Gc {
                network: "pods".to_owned(),
                valid: vec![attachment()],
            },
        ),
    ] {
        let node = Node::new();
        let agent = node.agent(Answer::Done);
        let config = node.chained(version, result, &fields);
        let told = run(&environment(command, &[]), config.as_bytes()).unwrap();
        assert_eq!((told.as_str(), agent.join().unwrap()), ("", wanted));
    }
    let node = Node::new();
    let agent = node.agent(Answer::Unknown);
    let failed = failure("CHECK", &node.chained(version, result, &json!({})));
    assert_eq!(failed.code, Code::UnknownContainer);
    agent.join().unwrap();
}

#[test]
fn without_an_agent_del_forgets_and_status_is_well() {
    let node = Node::new();
    let store = Store::new(node.path());
    store.save(&sandbox()).unwrap();
    let config = node.config("1.1.0", &json!({}));
    // A second time there is nothing left.
    for _ in 0..2 {
        let told = run(&environment("DEL", &[("CNI_NETNS", "")]), config.as_bytes());
        assert_eq!(told.unwrap(), "");
        assert!(store.load().unwrap().is_empty());
    }
    assert_eq!(
        run(&environment("STATUS", &[]), config.as_bytes()).unwrap(),
        ""
    );
    let valid = json!({"cni.dev/valid-attachments": []});
    for (command, config) in [
        ("GC", node.config("1.1.0", &valid)),
        ("CHECK", node.chained("1.0.0", RESULTS[1].1, &json!({}))),
    ] {
        assert_eq!(failure(command, &config).code, Code::TryAgain);
    }
}

#[test]
fn version_answers_in_the_version_that_was_asked_in() {
    for version in SUPPORTED.into_iter().chain(["9.9.9"]) {
        let config = json!({"cniVersion": version}).to_string();
        let told = run(&environment("VERSION", &[]), config.as_bytes()).unwrap();
        assert_eq!(
            told,
            format!(
                r#"{{"cniVersion":"{version}","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}}"#
            )
        );
    }
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_its_code() {
    let node = Node::new();
    let chained = |fields: Value| node.chained("1.0.0", RESULTS[1].1, &fields);
    let good = chained(json!({}));
    let odd = r#"{"ips":[{"address":"10.1.0.7.3/24"}]}"#;
    for (command, variable, config, code) in [
        (
            "ADD",
            ("CNI_CONTAINERID", ""),
            good.clone(),
            Code::Environment,
        ),
        (
            "ADD",
            ("CNI_CONTAINERID", "../x"),
            good.clone(),
            Code::Environment,
        ),
        (
            "ADD",
            ("CNI_CONTAINERID", "a/../../x"),
            good.clone(),
            Code::Environment,
        ),
        (
            "DEL",
            ("CNI_IFNAME", "a/b"),
            good.clone(),
            Code::Environment,
        ),
        (
            "ADD",
            ("CNI_IFNAME", "sixteen-and-more"),
            good.clone(),
            Code::Environment,
        ),
        ("ADD", ("CNI_NETNS", ""), good.clone(), Code::Environment),
        ("", ("", ""), good.clone(), Code::Environment),
        ("FLY", ("", ""), good, Code::Environment),
        ("ADD", ("", ""), "{".to_owned(), Code::Decode),
        // The fields of an object in their order are no object.
        ("VERSION", ("", ""), r#"["1.0.0"]"#.to_owned(), Code::Decode),
        (
            "ADD",
            ("", ""),
            node.chained("1.0.0", "[]", &json!({})),
            Code::Decode,
        ),
        (
            "ADD",
            ("", ""),
            chained(json!({"waitSeconds": "long"})),
            Code::Decode,
        ),
        (
            "ADD",
            ("", ""),
            chained(json!({"whenAgentIsDown": "hope"})),
            Code::Decode,
        ),
        (
            "ADD",
            ("", ""),
            node.chained("1.0.0", odd, &json!({})),
            Code::Decode,
        ),
        (
            "ADD",
            ("", ""),
            node.config("1.0.0", &json!({})),
            Code::Config,
        ),
        // As if every pod were gone.
        (
            "GC",
            ("", ""),
            node.config("1.1.0", &json!({})),
            Code::Config,
        ),
        (
            "ADD",
            ("", ""),
            node.chained("0.2.0", RESULTS[1].1, &json!({})),
            Code::Version,
        ),
        (
            "STATUS",
            ("", ""),
            node.config("2.0.0", &json!({})),
            Code::Version,
        ),
        ("STATUS", ("", ""), "{}".to_owned(), Code::Version),
    ] {
        let environment = environment(command, &[variable]);
        let failed = run(&environment, config.as_bytes()).unwrap_err();
        assert_eq!(
            failed.code, code,
            "{command} {variable:?} {config}: {failed}"
        );
    }
}

#[test]
fn requests_are_read_back() {
    let announced = Announcement {
        attachment: attachment(),
        network: "pods".to_owned(),
        pod: ObjectName::new("shop", "web-0"),
        uid: String::new(),
        addresses: vec!["10.1.0.7".parse().unwrap()],
        interfaces: vec!["veth1".to_owned()],
        wait_milliseconds: 10_000,
    };
    // What another version of the plugin and the agent must go on to understand.
    assert_eq!(
        serde_json::to_string(&Request::Add(announced)).unwrap(),
        r#"{"add":{"attachment":{"container":"abc123","interface":"eth0"},"network":"pods","pod":{"namespace":"shop","name":"web-0"},"uid":"","addresses":["10.1.0.7"],"interfaces":["veth1"],"waitMilliseconds":10000}}"#
    );
}
