//! How questions are written, and which have no answer.

use crate::explain::{PortName, Question, QuestionError, Subject};
use crate::model::{ObjectName, Protocol};

use super::cluster::shop;

#[test]
fn every_form_of_an_end_is_read() {
    let pod = Subject::Pod(ObjectName::new("shop", "db-0.x"));
    let service = Subject::Service(ObjectName::new("shop", "db"));
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
        ("a/b", "Shop/b", Subject(owned("Shop/b"))),
        ("a/b", "[fd00::1", Subject(owned("[fd00::1"))),
        ("a/b", "10.0.0.256", Subject(owned("10.0.0.256"))),
        ("a/b", "a/b:0", Port(owned("0"))),
        ("a/b", "a/b:65536", Port(owned("65536"))),
        ("a/b", "a/b:", Port(String::new())),
        ("a/b", "a/b:80/ICMP", Protocol(owned("ICMP"))),
        ("a/b:80", "a/b", SourcePort(owned("a/b:80"))),
    ] {
        assert_eq!(Question::parse(source, destination), Err(error));
    }
}

#[test]
fn what_is_asked_prints_as_it_was_written() {
    for text in ["shop/db", "shop/svc/db", "10.0.0.1", "[fd00::1]"] {
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
}
