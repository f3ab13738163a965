use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::model::Pod;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    directory
}

fn read_all(directory: &TempDir, recursive: bool) -> Repository {
    read(&[directory.path().to_owned()], recursive).expect("a directory")
}

fn pods(repository: &Repository) -> Vec<&Pod> {
    let pods = repository.objects.iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    });
    pods.collect()
}

fn names(repository: &Repository) -> Vec<String> {
    let names = pods(repository);
    names.iter().map(|pod| pod.name.to_string()).collect()
}

fn lines(repository: &Repository, directory: &Path) -> Vec<String> {
    let refused = repository.refused.iter();
    let lines = refused.map(|refused| format!("{}: {}", refused.location, refused.message));
    let here = format!("{}/", directory.display());
    lines.map(|line| line.replace(&here, "")).collect()
}

fn workload(version: &str, kind: &str) -> String {
    let template = "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, ports: [{containerPort: 8080, name: http}]}]}}";
    let spec = match kind {
        "CronJob" => format!("jobTemplate: {{spec: {{{template}}}}}"),
        _ => template.to_owned(),
    };
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{namespace: shop, name: web, labels: {{not: these}}}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn workloads_stand_for_a_pod_of_their_template() {
    for (version, kind, name, added) in [
        ("apps/v1", "Deployment", "shop/deploy/web", &[][..]),
        ("apps/v1", "DaemonSet", "shop/ds/web", &[]),
        ("apps/v1", "ReplicaSet", "shop/rs/web", &[]),
        ("v1", "ReplicationController", "shop/rc/web", &[]),
        ("batch/v1", "CronJob", "shop/cronjob/web", &[]),
        (
            "apps/v1",
            "StatefulSet",
            "shop/sts/web",
            &[
                ("statefulset.kubernetes.io/pod-name", "web-0"),
                ("apps.kubernetes.io/pod-index", "0"),
            ],
        ),
        (
            "batch/v1",
            "Job",
            "shop/job/web",
            &[("job-name", "web"), ("batch.kubernetes.io/job-name", "web")],
        ),
    ] {
        let directory = directory(&[("a.yaml", &workload(version, kind))]);
        let repository = read_all(&directory, false);
        assert_eq!(lines(&repository, directory.path()), [""; 0], "{kind}");
        let [pod] = pods(&repository)[..] else {
            panic!("{kind}: {repository:?}");
        };
        assert_eq!(pod.name.to_string(), name);
        let labels = [("app", "web")].iter().chain(added);
        let labels = labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        assert_eq!(pod.labels, labels.collect(), "{kind}");
        assert_eq!(pod.ports[0].port, 8080, "{kind}");
        assert_eq!((pod.node.as_str(), pod.ips.len()), (UNSCHEDULED, 0));
    }
}

#[test]
fn what_another_workload_makes_is_that_ones() {
    let owned = workload("apps/v1", "ReplicaSet").replace(
        "name: web, labels",
        "name: web, ownerReferences: [{controller: true, kind: Deployment, name: web}], labels",
    );
    let directory = directory(&[("a.yaml", &owned)]);
    let repository = read_all(&directory, false);
    assert!(repository.objects.is_empty() && repository.refused.is_empty());
}

#[test]
fn pods_need_no_node_and_services_no_address() {
    let directory = directory(&[(
        "a.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n  spec: {containers: []}\n\
         - apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec: {ports: [{port: 80}]}\n\
         - apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n  spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n",
    )]);
    let repository = read_all(&directory, false);
    assert_eq!(lines(&repository, directory.path()), [""; 0]);
    assert_eq!(names(&repository), ["default/a"]);
    let keys: Vec<_> = repository
        .locations
        .keys()
        .map(|(_, name)| name.to_string())
        .collect();
    assert_eq!(keys, ["default/b", "default/a"]);
}

#[test]
fn directories_are_walked_where_asked_and_hidden_ones_never() {
    let pod = |name: &str| {
        workload("apps/v1", "Deployment").replace("name: web", &format!("name: {name}"))
    };
    let (top, deep, hidden, other) = (pod("top"), pod("deep"), pod("hidden"), pod("other"));
    let directory = directory(&[
        ("top.yaml", &top),
        ("apps/deep/it.yml", &deep),
        (".git/it.yaml", &hidden),
        ("notes.txt", &other),
    ]);
    std::os::unix::fs::symlink(directory.path(), directory.path().join("loop")).expect("a link");
    assert_eq!(names(&read_all(&directory, false)), ["shop/deploy/top"]);
    assert_eq!(
        names(&read_all(&directory, true)),
        ["shop/deploy/deep", "shop/deploy/top"]
    );
    let file = directory.path().join("notes.txt");
    let named = read(&[file], false).expect("a file, whatever its name");
    assert_eq!(names(&named), ["shop/deploy/other"]);
    let missing = directory.path().join("missing.yaml");
    assert!(matches!(
        read(&[missing], false),
        Err(ManifestError::Open { .. })
    ));
}

#[test]
fn objects_are_found_again_by_file_and_line_and_so_is_what_is_wrong() {
    let directory = directory(&[
        (
            "a.yaml",
            "# a comment\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {namespace: shop, name: a}\nspec: {podSelector: {}}\n---\nno: object\n---\napiVersion: networking.k8s.io/v1\n\
             kind: NetworkPolicy\nmetadata: {name: bad}\nspec: {policyTypes: [Sideways]}\n",
        ),
        (
            "b.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
        ),
        ("c.yaml", "{"),
    ]);
    let repository = read_all(&directory, false);
    let place = |kind, name| repository.locations.get(&(kind, name)).expect("a place");
    let policy = place(Kind::NetworkPolicy, ObjectName::new("shop", "a"));
    assert_eq!(
        (policy.file.file_name(), policy.line),
        (Some("a.yaml".as_ref()), 6)
    );
    assert_eq!(place(Kind::Namespace, ObjectName::cluster("shop")).line, 2);
    let lines = lines(&repository, directory.path());
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (line, start) in lines.iter().zip([
        "a.yaml:11: not a Kubernetes object",
        "a.yaml:13: NetworkPolicy default/bad is skipped: spec.policyTypes[0]: \"Sideways\"",
        "b.yaml:1: Namespace shop is also at a.yaml:2, and this copy is not used",
        "c.yaml:1: the file is not used",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn pods_say_where_they_are_scraped() {
    for (annotations, scraped) in [
        ("", None),
        ("prometheus.io/scrape: 'true'", Some(8080)),
        (
            "prometheus.io/scrape: 'true', prometheus.io/port: '9102'",
            Some(9102),
        ),
        (
            "prometheus.io/scrape: 'false', prometheus.io/port: '9102'",
            None,
        ),
        (
            "prometheus.io/scrape: 'true', prometheus.io/port: http",
            None,
        ),
    ] {
        let text = workload("apps/v1", "Deployment").replace(
            "metadata: {labels: {app",
            &format!("metadata: {{annotations: {{{annotations}}}, labels: {{app"),
        );
        let directory = directory(&[("a.yaml", &text)]);
        let repository = read_all(&directory, false);
        assert_eq!(pods(&repository)[0].scraped, scraped, "{annotations}");
    }
}
