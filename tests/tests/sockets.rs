//! Real sockets against the running kernel: programs on a cgroup of the test's own, backends on the loopback device.
//!
//! Needs root, cgroup2 and an agent built with the kernel programs (`cargo xtask build`); says SKIP otherwise.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use weir::compile::compile;
use weir::datapath::{self, AttachMode, KernelDatapath, Options, SocketOptions};
use weir::model::ObjectName;
use weir::plan::Planner;
use weir_tests::fixture::{edit, snapshot};
use weir_tests::kernel::{Place, ThreadCgroup};
use weir_tests::simulator::mapped;

/// Service `b` of the fixture, and its only backend.
const SERVICES: [(&str, &str); 2] = [
    ("10.96.0.11:80", "10.0.1.2:8080"),
    ("[fd96::11]:80", "[fd00:1::2]:8080"),
];
/// Service `also-b`, with the same backend.
const ALSO_B: &str = "10.96.0.14:80";
/// Service `none`.
const EMPTY: [&str; 2] = ["10.96.0.13:80", "[fd96::13]:80"];

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// Brings up the loopback device of the thread's namespace, with the backends' addresses and a way to Services that ends here.
fn loopback() {
    for arguments in [
        "link set lo up",
        "addr add 10.0.1.2/32 dev lo",
        "addr add fd00:1::2/128 dev lo nodad",
    ] {
        let status = Command::new("ip")
            .args(arguments.split(' '))
            .status()
            .expect("ip");
        assert!(status.success(), "ip {arguments}");
    }
}

/// An agent's data path with the Services of the fixture, attached to a cgroup.
fn open(place: &Place, sockets: Option<SocketOptions>) -> KernelDatapath {
    let options = Options {
        sockets,
        ..place.options(AttachMode::Auto)
    };
    let mut datapath = KernelDatapath::open(&options).expect("open");
    let mut planner = Planner::new();
    planner.adopt_backends(&datapath.backends().expect("backends"));
    let plan = planner
        .plan(&compile(&snapshot([11, 12], Vec::new())))
        .expect("plan");
    datapath.execute(&plan).expect("write");
    datapath.attach_sockets().expect("attach");
    datapath
}

fn sockets(cgroup: &Path, pods: bool) -> Option<SocketOptions> {
    Some(SocketOptions {
        cgroup: cgroup.to_owned(),
        pods,
    })
}

fn tcp_works(service: SocketAddr, backend: SocketAddr) {
    let listener = TcpListener::bind(backend).expect("listen");
    let client = TcpStream::connect(service).expect("connect");
    assert_eq!(client.peer_addr().expect("peer"), service);
    let (server, from) = listener.accept().expect("accept");
    // The server's own view is the truth.
    assert_eq!(server.peer_addr().expect("peer"), from);
    assert_eq!(server.local_addr().expect("address"), backend);
}

fn datagrams_work(service: SocketAddr, backend: SocketAddr) {
    let any = match service {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let server = UdpSocket::bind(backend).expect("bind");
    for connected in [true, false] {
        let client = UdpSocket::bind::<SocketAddr>(any).expect("bind");
        let limit = Some(Duration::from_secs(5));
        client.set_read_timeout(limit).expect("time-out");
        server.set_read_timeout(limit).expect("time-out");
        if connected {
            client.connect(service).expect("connect");
            assert_eq!(client.peer_addr().expect("peer"), service);
            client.send(b"a").expect("send");
        } else {
            client.send_to(b"a", service).expect("send");
        }
        let mut buffer = [0; 8];
        let (_, from) = server.recv_from(&mut buffer).expect("a datagram");
        server.send_to(b"b", from).expect("answer");
        let (_, from) = client.recv_from(&mut buffer).expect("an answer");
        assert_eq!(from, service, "connected: {connected}");
    }
}

#[test]
fn the_nodes_sockets_reach_services() {
    let Some(place) = Place::new() else { return };
    let cgroup = ThreadCgroup::enter();
    loopback();
    let datapath = open(&place, sockets(cgroup.path(), false));
    assert!(datapath.sockets_attached().expect("links"));
    let features = datapath::probe(&datapath);
    let has = |name| {
        features
            .iter()
            .any(|feature| feature.name == name && feature.present)
    };
    println!("chooses errors: {}", has("socket_error"));
    assert!(has("netns_cookie"), "{features:?}");

    for (service, backend) in SERVICES.map(|(service, backend)| (at(service), at(backend))) {
        tcp_works(service, backend);
        datagrams_work(service, backend);
    }
    let (service, backend) = SERVICES[0];
    datagrams_work_mapped(mapped(at(service)), at(backend));
    let expected = if has("socket_error") {
        ErrorKind::ConnectionRefused
    } else {
        ErrorKind::PermissionDenied
    };
    for to in EMPTY.map(at) {
        let error = TcpStream::connect(to).expect_err("no endpoint");
        assert_eq!(error.kind(), expected, "{to}: {error}");
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("bind");
        let error = socket.send_to(b"a", mapped(to)).expect_err("no endpoint");
        assert_eq!(error.kind(), expected, "{to}: {error}");
    }
    drop(datapath);
    datapath::cleanup(&place.directory()).expect("clean up");
    assert!(TcpStream::connect(at(service)).is_err(), "still there");
}

/// An IPv6 socket that is given a mapped address, with each system call that has one.
fn datagrams_work_mapped(service: SocketAddr, backend: SocketAddr) {
    let listener = TcpListener::bind(backend).expect("listen");
    let client = TcpStream::connect(service).expect("connect");
    assert_eq!(client.peer_addr().expect("peer"), service);
    drop((client, listener));
    datagrams_work(service, backend);
}

#[test]
fn other_namespaces_are_served_if_that_is_wanted() {
    let Some(place) = Place::new() else { return };
    let cgroup = ThreadCgroup::enter();
    loopback();
    // A pod: the same cgroup, another network.
    let in_pod = |works: bool| {
        thread::scope(|scope| {
            let pod = scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
                loopback();
                for (service, backend) in
                    SERVICES.map(|(service, backend)| (at(service), at(backend)))
                {
                    if works {
                        tcp_works(service, backend);
                    } else {
                        assert!(TcpStream::connect(service).is_err(), "{service}");
                    }
                }
                // Its packets tell that it is refused, and what became of its datagrams.
                for to in EMPTY.map(at) {
                    let error = TcpStream::connect(to).expect_err("no endpoint");
                    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{to}");
                }
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
                let error = socket.send_to(b"a", SERVICES[0].0).expect_err("no route");
                assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
            });
            pod.join().expect("a pod");
        });
    };
    drop(open(&place, sockets(cgroup.path(), false)));
    in_pod(false);
    drop(open(&place, sockets(cgroup.path(), true)));
    in_pod(true);
    tcp_works(at(SERVICES[0].0), at(SERVICES[0].1));
    let datapath = open(&place, None);
    assert!(!datapath.sockets_attached().expect("links"));
    in_pod(false);
    assert!(
        TcpStream::connect(at(SERVICES[0].0)).is_err(),
        "still there"
    );
}

#[test]
fn connected_sockets_end_with_their_backends() {
    let Some(place) = Place::new() else { return };
    let cgroup = ThreadCgroup::enter();
    loopback();
    let mut datapath = open(&place, sockets(cgroup.path(), false));
    let connect = |from: IpAddr, to| {
        let socket = UdpSocket::bind((from, 0)).expect("bind");
        socket.connect(to).expect("connect");
        socket
    };
    let [v4, v6] = [
        Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let [(service4, backend4), (service6, _)] = SERVICES.map(|(a, b)| (at(a), at(b)));
    let stale = [
        connect(v4, service4),
        connect(v6, service6),
        connect(v6, mapped(service4)),
    ];
    // By its own name, and by the other Service that has this backend.
    let healthy = [connect(v4, backend4), connect(v4, at(ALSO_B))];
    assert_eq!(datapath.end_stale_sockets().expect("end"), 0);

    let mut fewer = snapshot([11, 12], Vec::new());
    edit(&mut fewer.slices, |slice| {
        if slice.service == ObjectName::new("shop", "b") {
            slice.endpoints.clear();
        }
    });
    let mut planner = Planner::new();
    planner.adopt_backends(&datapath.backends().expect("backends"));
    let plan = planner.plan(&compile(&fewer)).expect("plan");
    datapath.execute(&plan).expect("write");
    assert_eq!(datapath.end_stale_sockets().expect("end"), stale.len());
    for socket in stale {
        let error = socket.recv(&mut [0; 8]).expect_err("the socket lives");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    }
    for socket in healthy {
        assert!(socket.peer_addr().is_ok(), "the socket is not connected");
    }
    assert_eq!(datapath.end_stale_sockets().expect("end"), 0);
}

#[test]
fn a_new_agent_takes_over_and_may_move_to_another_cgroup() {
    let Some(place) = Place::new() else { return };
    let cgroup = ThreadCgroup::enter();
    loopback();
    let (service, backend) = (at(SERVICES[0].0), at(SERVICES[0].1));
    drop(open(&place, sockets(cgroup.path(), false)));
    let listener = TcpListener::bind(backend).expect("listen");
    let client = TcpStream::connect(service).expect("connect");
    drop(open(&place, sockets(cgroup.path(), false)));
    // What sockets remember outlives the agent that they met.
    assert_eq!(client.peer_addr().expect("peer"), service);
    drop(listener);
    tcp_works(service, backend);

    // A cgroup below: the thread's own has no programs any more.
    let below = cgroup.path().join("below");
    std::fs::create_dir(&below).expect("a cgroup");
    let datapath = open(&place, sockets(&below, false));
    assert!(datapath.sockets_attached().expect("links"));
    drop(datapath);
    datapath::cleanup(&place.directory()).expect("clean up");
    std::fs::remove_dir(&below).expect("an empty cgroup");
    assert!(TcpStream::connect(service).is_err(), "still there");
}
