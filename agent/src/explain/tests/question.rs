//! How questions are written, and which have no answer.

use crate::explain::{PortName, Question, QuestionError, Subject, Verdict};
use crate::model::UnknownProtocol;
use crate::model::{ObjectName, Protocol};

use super::cluster::shop;

#[test]
fn every_form_of_an_end_is_read() {
    let pod = Subject::Pod(ObjectName::new("shop", "db-0.x"));
    let service = Subject::Service(ObjectName::new("shop", "db"));
    let workload = |name| Subject::Workload(ObjectName::new("shop", name));
    let deployment = workload("deploy/db");
    let called_deploy = Subject::Pod(ObjectName::new("shop", "deploy"));
    let node = Subject::Node("n1".to_owned());
    let v4 = Subject::Address("10.0.0.1".parse().unwrap());
    let v6 = Subject::Address("fd00::1".parse().unwrap());
    let number = |port| Some(PortName::Number(port));
    let name = |name: &str| Some(PortName::Name(name.to_owned()));
    let udp = Some(Protocol::Udp);
    let tcp = Some(Protocol::Tcp);
    for (text, subject, port, protocol) in [
        ("shop/db-0.x", &pod, None, None),
        ("shop/db-0.x:80", &pod, number(80), None),
        ("shop/db-0.x/udp", &pod, None, udp),
        ("shop/db-0.x:dns-tcp/TCP", &pod, name("dns-tcp"), tcp),
        ("shop/svc/db", &service, None, None),
        ("shop/svc/db:http", &service, name("http"), None),
        ("shop/svc/db:53/UDP", &service, number(53), udp),
        ("shop/svc/db/TCP", &service, None, tcp),
        ("db.shop.svc", &service, None, None),
        ("db.shop.svc.cluster.local:80", &service, number(80), None),
        ("db.shop.svc:http/UDP", &service, name("http"), udp),
        ("shop/deploy/db", &deployment, None, None),
        ("shop/deployment/db:80", &deployment, number(80), None),
        ("shop/deployments/db:80/UDP", &deployment, number(80), udp),
        ("shop/deploy/db/UDP", &deployment, None, udp),
        ("shop/deploy/udp", &called_deploy, None, udp),
        ("shop/cj/db", &workload("cronjob/db"), None, None),
        ("shop/statefulset/db", &workload("sts/db"), None, None),
        ("shop/ds/db", &workload("ds/db"), None, None),
        ("shop/jobs/db", &workload("job/db"), None, None),
        ("node/n1", &node, None, None),
        ("node/n1:30080/UDP", &node, number(30080), udp),
        ("10.0.0.1", &v4, None, None),
        ("10.0.0.1:65535/UDP", &v4, number(65535), udp),
        ("10.0.0.1/UDP", &v4, None, udp),
        ("[fd00::1]", &v6, None, None),
        ("fd00::1", &v6, None, None),
        ("[fd00::1]:80/TCP", &v6, number(80), tcp),
    ] {
        let question = Question::parse("a/b", text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(&question.destination, subject, "{text}");
        assert_eq!(question.port, port, "{text}");
        assert_eq!(question.protocol, protocol, "{text}");
    }
}

#[test]
fn slips_are_named() {
    use QuestionError::{Port, Protocol, SourcePort, Subject};
    let owned = str::to_owned;
    for (source, destination, error) in [
        ("frontend", "a/b", Subject(owned("frontend"))),
        ("a/b", "a/svc/b/c/d", Subject(owned("a/svc/b/c/d"))),
        ("a/b", "a/svc/", Subject(owned("a/svc/"))),
        ("a/b", "a/pdb/c", Protocol(UnknownProtocol(owned("c")))),
        ("a/b", "a/pdb/c/TCP", Subject(owned("a/pdb/c/TCP"))),
        ("a/b", "db.shop", Subject(owned("db.shop"))),
        ("a/b", "Shop/b", Subject(owned("Shop/b"))),
        ("a/b", "[fd00::1", Subject(owned("[fd00::1"))),
        ("a/b", "10.0.0.256", Subject(owned("10.0.0.256"))),
        ("a/b", "a/b:0", Port(owned("0"))),
        ("a/b", "a/b:65536", Port(owned("65536"))),
        ("a/b", "a/b:", Port(String::new())),
        ("a/b", "a/b:Http", Port(owned("Http"))),
        ("a/b", "a/b:http_alt", Port(owned("http_alt"))),
        (
            "a/b",
            &format!("a/b:{}", "x".repeat(64)),
            Port("x".repeat(64)),
        ),
        (
            "a/b",
            "a/b:80/ICMP",
            Protocol(UnknownProtocol(owned("ICMP"))),
        ),
        ("a/b:80", "a/b", SourcePort(owned("a/b:80"))),
    ] {
        assert_eq!(Question::parse(source, destination), Err(error));
    }
}

#[test]
fn what_is_asked_prints_as_it_was_written() {
    for text in [
        "shop/db",
        "shop/svc/db",
        "shop/deploy/db",
        "node/n1",
        "10.0.0.1",
        "[fd00::1]",
    ] {
        let question = Question::parse(text, text).unwrap();
        assert_eq!(question.source.to_string(), text);
    }
}

#[test]
fn questions_without_an_answer_say_what_to_ask() {
    let cluster = shop()
        .service("shop/two", "10.96.0.2", "app=backend", "a=80 b=81", "8080")
        .pod("shop/pending", "n1", "", "", "")
        .pod("shop/done", "n1", "10.1.0.200", "", "")
        .edit_pod("shop/done", |pod| pod.terminal = true)
        .pod(
            "web/site-5f-x",
            "n1",
            "10.1.0.201",
            "pod-template-hash=5f",
            "",
        )
        .edit_pod("web/site-5f-x", |pod| pod.terminal = true)
        .pod(
            "web/cache-0",
            "n1",
            "10.1.0.202",
            "statefulset.kubernetes.io/pod-name=cache-0",
            "",
        )
        .pod(
            "web/log-q",
            "n1",
            "10.1.0.203",
            "controller-revision-hash=9c",
            "",
        )
        .pod("shop/six", "n1", "fd01::66", "", "80");
    for (source, destination, message) in [
        (
            "web/front",
            "shop/database",
            "no pod web/front is known here; there is web/frontend",
        ),
        (
            "web/frontend",
            "shop/backend",
            "; there is a Service: shop/svc/backend",
        ),
        (
            "web/frontend",
            "shop/svc/none",
            "no Service with a ClusterIP shop/none is known",
        ),
        (
            "web/frontend",
            "10.9.9.9",
            "which port of 10.9.9.9? Ask for 10.9.9.9:PORT",
        ),
        (
            "web/frontend",
            "shop/svc/two",
            "there is 80/TCP (a), 81/TCP (b)",
        ),
        (
            "web/frontend",
            "shop/svc/two:c",
            "has no TCP port named \"c\"",
        ),
        (
            "web/frontend",
            "shop/database:web",
            "has no TCP port named \"web\"; there is 5432/TCP (sql)",
        ),
        (
            "web/deploy/site",
            "shop/database",
            "no pod with an address of web/deploy/site is known here; there is web/ds/log, web/sts/cache",
        ),
        (
            "node/n9",
            "shop/database",
            "no node n9 is known here; there is n1, n2",
        ),
        ("shop/pending", "shop/database", "has no address yet"),
        ("shop/done", "shop/database", "has ended"),
        (
            "10.96.0.10",
            "shop/database",
            "is the virtual address of Service shop/backend",
        ),
        (
            "shop/six",
            "shop/svc/two:a",
            "have no address family in common",
        ),
    ] {
        let error = cluster.fail(source, destination);
        assert!(
            error.contains(message),
            "{source} -> {destination}: {error}"
        );
    }
}

#[test]
fn pods_of_other_namespaces_are_not_meant() {
    let error = shop().fail("web/back", "shop/database");
    assert_eq!(error, "no pod web/back is known here");
}

#[test]
fn ports_that_can_be_told_need_not_be_given() {
    let cluster = shop();
    let port = |destination: &str| {
        let answer = cluster.ask("web/frontend", destination);
        (answer.port, answer.protocol)
    };
    assert_eq!(port("shop/database"), (5432, Protocol::Tcp));
    assert_eq!(port("shop/database:sql"), (5432, Protocol::Tcp));
    assert_eq!(port("shop/svc/backend"), (80, Protocol::Tcp));
    assert_eq!(port("10.96.0.10"), (80, Protocol::Tcp));
    assert_eq!(port("10.2.0.4"), (5432, Protocol::Tcp));
    assert_eq!(port("kube-system/dns/UDP"), (5353, Protocol::Udp));
    assert_eq!(port("kube-system/svc/kube-dns:53"), (53, Protocol::Tcp));
    assert_eq!(port("kube-system/svc/kube-dns:dns"), (53, Protocol::Udp));
    // Of several the one of the usual protocol, where there is but one, whatever else there is.
    let cluster = cluster
        .pod("shop/both", "n1", "10.1.0.30", "", "a=53 b=53/UDP")
        .pod("shop/udp", "n1", "10.1.0.31", "", "a=5000/UDP")
        .service("shop/both", "10.96.0.3", "", "a=53 b=54/UDP", "53")
        .pod("shop/two", "n1", "10.1.0.32", "", "80 81 82/UDP");
    let port = |destination: &str| {
        let answer = cluster.ask("web/frontend", destination);
        (answer.port, answer.protocol)
    };
    assert_eq!(port("shop/both"), (53, Protocol::Tcp));
    assert_eq!(port("shop/both/UDP"), (53, Protocol::Udp));
    assert_eq!(port("shop/udp"), (5000, Protocol::Udp));
    assert_eq!(port("shop/svc/both"), (53, Protocol::Tcp));
    assert_eq!(port("shop/two/UDP"), (82, Protocol::Udp));
    let error = cluster.fail("web/frontend", "shop/two");
    assert!(
        error.ends_with("; there is 80/TCP, 81/TCP, 82/UDP"),
        "{error}"
    );
}

#[test]
fn ten_ports_are_listed_and_the_rest_is_counted() {
    let ports = |count: u16| (1..=count).map(|port| port.to_string()).collect::<Vec<_>>();
    for (count, end) in [
        (9, "8/TCP, 9/TCP"),
        (10, "9/TCP, 10/TCP"),
        (11, "9/TCP, 10/TCP, and 1 more"),
        (13, "9/TCP, 10/TCP, and 3 more"),
    ] {
        let cluster = shop().pod("shop/many", "n1", "10.1.0.30", "", &ports(count).join(" "));
        let error = cluster.fail("web/frontend", "shop/many");
        assert!(error.ends_with(end), "{error}");
    }
}

#[test]
fn a_workload_is_all_its_pods() {
    let cluster = shop()
        .pod("web/site-5f-a", "n1", "10.1.0.21", "app=site,pod-template-hash=5f", "http=8080")
        .pod("web/site-5f-b", "n2", "10.2.0.21", "app=site,pod-template-hash=5f", "http=8080")
        .pod("web/site-6c-c", "n2", "", "app=site,pod-template-hash=6c", "http=8080")
        .rule(
            "web/site",
            "{podSelector: {matchLabels: {app: site}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {team: shop}}}]}]}",
        );
    let answer = cluster.ask("web/deploy/site", "shop/database");
    let mut sources: Vec<_> = answer
        .flows
        .iter()
        .map(|flow| flow.source.address.to_string())
        .collect();
    sources.sort();
    assert_eq!(sources, ["10.1.0.21", "10.2.0.21"]);
    assert_eq!(
        (answer.verdict, &*answer.source),
        (Verdict::Allowed, "web/deploy/site")
    );

    let answer = cluster.ask("web/frontend", "web/deploy/site:http");
    assert_eq!((answer.verdict, answer.port), (Verdict::Denied, 8080));
    assert_eq!(answer.flows.len(), 2);
    assert_eq!(
        cluster.ask("shop/database", "web/deploy/site").verdict,
        Verdict::Allowed
    );
}

#[test]
fn a_node_is_its_addresses() {
    let cluster = shop()
        .pod("node/n3", "n1", "10.1.0.30", "", "")
        .edit_service("shop/backend", |service| {
            service.ports[0].node_port = Some(30080);
        });
    let answer = cluster.ask("node/n2", "shop/database");
    let sources: Vec<_> = answer
        .flows
        .iter()
        .map(|flow| flow.source.address.to_string())
        .collect();
    assert_eq!(sources, ["192.168.0.2", "fd0a::2"]);
    let answer = cluster.ask("web/frontend", "node/n1:30080");
    assert_eq!(
        answer.translations[0].service,
        ObjectName::new("shop", "backend")
    );
    assert_eq!(answer.verdict, Verdict::Allowed);
    // A namespace may be called so, too.
    let answer = cluster.ask("node/n3", "shop/database");
    assert_eq!(answer.flows[0].source.address.to_string(), "10.1.0.30");
}
