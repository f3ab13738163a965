//! Directories as people and mounts make them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::model::{Kind, Object, ObjectName};
use crate::state::State;

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n";

fn service(name: &str, port: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: 10.0.0.1\n  ports:\n  - port: {port}\n"
    )
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in files {
        put(directory.path(), name, content);
    }
    directory
}

/// Replaces a file as most editors do.
fn put(directory: &Path, name: &str, content: &str) {
    let draft = directory.join(".draft");
    fs::write(&draft, content).expect("write a draft");
    fs::rename(&draft, directory.join(name)).expect("rename the draft");
}

fn state_of(directory: &Path) -> State {
    let mut state = State::new("node-a");
    for event in load(directory).expect("a directory").events {
        state.apply(event);
    }
    state
}

fn rejections(files: &[(&str, &str)]) -> Vec<String> {
    load(directory(files).path())
        .expect("a directory")
        .rejections
}

fn web(port: u32) -> Event {
    let directory = directory(&[("a.yaml", &service("web", port))]);
    let loaded = load(directory.path()).expect("a directory");
    let services = loaded.events.into_iter().find_map(|event| match event {
        Event::Replaced(Kind::Service, services) => Some(services),
        _ => None,
    });
    Event::Applied(services.expect("services").remove(0))
}

#[test]
fn reads_every_format() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop}, spec: {nodeName: node-a, containers: []}}";
    let directory = directory(&[
        (
            "a.yaml",
            &format!("# comment\n{NODE}---\n{}---\n", service("web", 80)),
        ),
        (
            "b.yml",
            &format!("apiVersion: v1\nkind: List\nitems:\n- {pod}\n"),
        ),
        (
            "c.json",
            r#"{"apiVersion": "v1", "kind": "NamespaceList", "items": [{"metadata": {"name": "x"}}]}
               {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"}}"#,
        ),
        (
            "d.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n\
             apiVersion: crd.projectcalico.org/v1\nkind: NetworkPolicy\nmetadata: {name: other}\n",
        ),
        ("ignored.txt", "}{"),
        (".hidden.yaml", "}{"),
    ]);
    let loaded = load(directory.path()).expect("a directory");
    assert_eq!(loaded.rejections, [""; 0]);
    let kinds: Vec<_> = loaded
        .events
        .iter()
        .map(|event| match event {
            Event::Replaced(kind, objects) => (*kind, objects.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            (Kind::Service, 1),
            (Kind::EndpointSlice, 0),
            (Kind::NetworkPolicy, 1),
            (Kind::ClusterNetworkPolicy, 0),
            (Kind::Pod, 1),
            // x, and those that are mentioned: default and shop.
            (Kind::Namespace, 3),
            (Kind::Node, 1),
            (Kind::ServiceCidr, 0),
        ]
    );
    let state = state_of(directory.path());
    assert_eq!(
        state.snapshot().namespaces["shop"].labels["kubernetes.io/metadata.name"],
        "shop"
    );
}

#[test]
fn bad_objects_are_named_with_file_and_line() {
    for (name, content, wanted) in [
        (
            "a.yaml",
            format!("{NODE}---\n{}", service("web", 0)),
            "Service default/web is skipped: a.yaml, line 5: spec.ports[0].port: 0 is not a port; use 1 to 65535",
        ),
        (
            "a.yaml",
            "apiVersion: networking.k8s.io/v2\nkind: NetworkPolicy\nmetadata: {name: p, namespace: n}\n".to_owned(),
            "NetworkPolicy n/p is skipped: a.yaml, line 1: apiVersion \"networking.k8s.io/v2\" is not known for this kind; use \"networking.k8s.io/v1\"",
        ),
        (
            "a.yaml",
            "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: p}\n".to_owned(),
            "NetworkPolicy default/p is skipped: a.yaml, line 1: apiVersion \"extensions/v1beta1\" is not known for this kind; use \"networking.k8s.io/v1\"",
        ),
        (
            "a.yaml",
            "apiVersion: networking.k8s.io/v1\nkind: Networkpolicy\nmetadata: {name: p}\n".to_owned(),
            "NetworkPolicy default/p is skipped: a.yaml, line 1: cannot be read as networking.k8s.io/v1 NetworkPolicy: invalid value: string \"Networkpolicy\", expected NetworkPolicy",
        ),
        (
            "a.json",
            "\n\n{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"web\"}, \"spec\": {\"ports\": [{\"port\": \"http\"}]}}".to_owned(),
            "Service default/web is skipped: a.json, line 3: cannot be read as v1 Service: spec.ports[0].port: invalid type: string \"http\", expected i32",
        ),
        (
            "a.yaml",
            "apiVersion: v1\nkind: Pod\n".to_owned(),
            "Pod default/ is skipped: a.yaml, line 1: metadata.name: the object has no name; give it one",
        ),
    ] {
        assert_eq!(rejections(&[(name, &content)]), [wanted]);
    }
}

#[test]
fn a_malformed_file_is_named_and_touches_no_other() {
    let broken = format!("{NODE}---\nkind: [unclosed\n");
    for (name, content, place) in [
        ("broken.yaml", broken.as_str(), "line "),
        (
            "broken.yaml",
            "just text",
            "line 1: not a Kubernetes object",
        ),
        (
            "broken.yaml",
            "kind: Pod\n",
            "line 1: not a Kubernetes object",
        ),
        ("broken.json", "{\"kind\": \"Pod\",\n}", "line 2"),
    ] {
        let directory = directory(&[(name, content), ("web.yaml", &service("web", 80))]);
        let state = state_of(directory.path());
        assert_eq!(state.snapshot().services.len(), 1);
        assert!(state.snapshot().nodes.is_empty(), "half a file is not used");
        let told = state.rejections();
        assert_eq!(
            (told.len(), told[0].kind, told[0].name.as_str()),
            (1, "File", name)
        );
        assert!(told[0].message.contains(place), "{}", told[0].message);
    }
}

#[test]
fn a_missing_directory_is_an_error() {
    let directory = directory(&[]);
    let error = load(&directory.path().join("none")).expect_err("no directory");
    assert!(error.to_string().contains("/none: No such file"), "{error}");
}

#[test]
fn the_first_file_with_an_object_counts() {
    let directory = directory(&[
        ("a.yaml", &service("web", 80)),
        ("b.yaml", &format!("{NODE}---\n{}", service("web", 81))),
    ]);
    let mut reader = Directory::new(directory.path(), None);
    let mut state = State::new("node-a");
    for event in reader.scan().expect("a directory") {
        state.apply(event);
    }
    let port =
        |state: &State| state.snapshot().services[&ObjectName::new("default", "web")].ports[0].port;
    assert_eq!(port(&state), 80);
    assert_eq!(
        state.rejections()[0].message,
        "it is also in b.yaml, line 5, and that copy is not used; keep one"
    );
    fs::remove_file(directory.path().join("a.yaml")).expect("remove a file");
    for event in reader.scan().expect("a directory") {
        state.apply(event);
    }
    assert_eq!(port(&state), 81);
    assert!(state.rejections().is_empty());
}

#[test]
fn later_events_are_minimal_and_a_broken_file_keeps_its_last_content() {
    let directory = directory(&[("a.yaml", &service("web", 80)), ("n.yaml", NODE)]);
    let path = directory.path();
    let mut reader = Directory::new(path, None);
    assert_eq!(reader.scan().expect("a directory").len(), Kind::ALL.len());
    assert_eq!(reader.scan().expect("a directory"), []);

    put(
        path,
        "a.yaml",
        &format!("# a comment\n{}", service("web", 80)),
    );
    assert_eq!(reader.scan().expect("a directory"), []);

    put(path, "a.yaml", &service("web", 81));
    assert_eq!(reader.scan().expect("a directory"), [web(81)]);

    put(path, "a.yaml", "kind: {");
    let told = reader.scan().expect("a directory");
    assert!(
        matches!(told.as_slice(), [Event::File { name, message: Some(_) }] if name == "a.yaml"),
        "{told:?}"
    );
    assert_eq!(reader.scan().expect("a directory"), []);

    // A broken file says nothing about its neighbours.
    put(path, "b.yaml", &service("other", 90));
    let told = reader.scan().expect("a directory");
    assert!(
        matches!(told.as_slice(), [Event::Applied(Object::Service(service))] if service.name.name == "other"),
        "{told:?}"
    );

    put(path, "a.yaml", &service("web", 81));
    let good = Event::File {
        name: "a.yaml".to_owned(),
        message: None,
    };
    assert_eq!(reader.scan().expect("a directory"), [good]);

    put(path, "a.yaml", &service("web", 0));
    let told = reader.scan().expect("a directory");
    assert!(
        matches!(told.as_slice(), [Event::Rejected { name, .. }] if name.name == "web"),
        "{told:?}"
    );
    put(path, "a.yaml", &service("web", 82));
    assert_eq!(reader.scan().expect("a directory"), [web(82)]);

    fs::remove_file(path.join("a.yaml")).expect("remove a file");
    let name = ObjectName::new("default", "web");
    assert_eq!(
        reader.scan().expect("a directory"),
        [Event::Deleted(Kind::Service, name)]
    );
}

#[test]
fn a_file_that_broke_while_no_agent_ran_counts_as_it_last_was() {
    let directory = directory(&[("a.yaml", &service("web", 80)), ("b.yaml", NODE)]);
    let kept = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let start = || {
        let mut reader = Directory::new(path, Some(LastGood::new(kept.path())));
        let mut state = State::new("node-a");
        for event in reader.scan().expect("a directory") {
            state.apply(event);
        }
        (reader, state)
    };
    let (_, before) = start();
    put(path, "a.yaml", "}");
    fs::remove_file(path.join("b.yaml")).expect("remove");
    let (mut reader, after) = start();
    assert_eq!(after.snapshot().services, before.snapshot().services);
    assert_eq!(after.snapshot().services.len(), 1);
    let message = &after.rejections()[0].message;
    assert!(message.contains("its last good content stays"), "{message}");
    // What is gone stays gone, though it comes back broken.
    put(path, "b.yaml", "}");
    reader.scan().expect("a directory");
    assert_eq!(start().1.snapshot().nodes, Default::default());
}

/// A ConfigMap mount: files are links through `..data`, which is swapped by a rename.
#[test]
fn a_config_map_mount_is_followed() {
    let directory = directory(&[]);
    let path = directory.path();
    let version = |number: &str, port| {
        fs::create_dir(path.join(number)).expect("make a version");
        fs::write(path.join(number).join("web.yaml"), service("web", port)).expect("write");
        symlink(number, path.join("..data_tmp")).expect("link");
        fs::rename(path.join("..data_tmp"), path.join("..data")).expect("swap");
    };
    version("..1", 80);
    symlink("..data/web.yaml", path.join("web.yaml")).expect("link");
    let mut reader = Directory::new(path, None);
    assert_eq!(reader.scan().expect("a directory").len(), Kind::ALL.len());
    version("..2", 81);
    assert_eq!(reader.scan().expect("a directory"), [web(81)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_reports_changes_and_ends_when_told() {
    let directory = directory(&[("a.yaml", &service("web", 80))]);
    let (sender, mut events) = mpsc::channel(16);
    let shutdown = CancellationToken::new();
    let source = ManifestSource::new(directory.path()).run(sender, shutdown.clone());
    let task = tokio::spawn(source);
    let patience = Duration::from_secs(10);
    for kind in Kind::ALL {
        let event = timeout(patience, events.recv()).await.expect("in time");
        assert!(
            matches!(event, Some(Event::Replaced(of, _)) if of == kind),
            "{event:?}"
        );
    }
    for port in 81..90 {
        put(directory.path(), "a.yaml", &service("web", port));
        let event = timeout(patience, events.recv()).await.expect("in time");
        assert_eq!(event, Some(web(port)));
    }
    shutdown.cancel();
    timeout(patience, task)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("no error");
}

#[derive(Clone, Debug)]
enum Edit {
    Write(u8, Vec<(u8, u8)>),
    Break(u8),
    Remove(u8),
    Scan,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..3u8, prop::collection::vec((0..3u8, 0..3u8), 0..3)).prop_map(|(file, services)| Edit::Write(file, services)),
        1 => (0..3u8).prop_map(Edit::Break),
        2 => (0..3u8).prop_map(Edit::Remove),
        3 => Just(Edit::Scan),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However a directory came to be as it is, following it ends where loading it starts; and no event was empty.
    #[test]
    fn following_equals_loading(edits in prop::collection::vec(edit(), 1..30)) {
        let directory = directory(&[]);
        let path = directory.path();
        let mut reader = Directory::new(path, None);
        let mut state = State::new("node-a");
        let last = (0..3).map(|file| Edit::Write(file, vec![(file, file)]));
        for edit in edits.into_iter().chain(last).chain([Edit::Scan]) {
            match edit {
                Edit::Write(file, services) => {
                    let documents: Vec<_> = services
                        .into_iter()
                        // Port 0 makes some of them bad.
                        .map(|(name, port)| service(&format!("s{name}"), port.into()))
                        .collect();
                    put(path, &format!("{file}.yaml"), &documents.join("---\n"));
                }
                Edit::Break(file) => put(path, &format!("{file}.yaml"), "}"),
                Edit::Remove(file) => {
                    let _ = fs::remove_file(path.join(format!("{file}.yaml")));
                }
                Edit::Scan => {
                    for event in reader.scan().expect("a directory") {
                        state.apply(event);
                    }
                }
            }
        }
        let fresh = state_of(path);
        prop_assert_eq!(fresh.snapshot(), state.snapshot());
        prop_assert_eq!(fresh.rejections(), state.rejections());
    }
}
