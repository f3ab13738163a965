//! The data path against the running kernel: every test has a mount and a network namespace of its own.
//!
//! Needs root and an agent built with the kernel programs (`cargo xtask build`); says SKIP otherwise.

#[path = "datapath/xdp.rs"]
mod xdp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir::datapath::{self, AttachMode, Error, KernelDatapath, Options, TestRun};
use weir::plan::{Plan, Step, Table};
use weir_common::abi::{
    Address, BackendState, Class, Device, Hook, LAYOUT, PrefixKey, Segment, VerdictKey, control,
};
use weir_tests::kernel::{Place, veth};
use zerocopy::IntoBytes;

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .expect(program);
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn write<K: IntoBytes + zerocopy::Immutable, V: IntoBytes + zerocopy::Immutable>(
    table: Table,
    key: &K,
    value: &V,
) -> Step {
    Step::Write {
        table,
        key: key.as_bytes().into(),
        value: value.as_bytes().into(),
    }
}

fn address(last: u8) -> Address {
    std::net::IpAddr::from([10, 0, 0, last]).into()
}

fn class(version: u32) -> Class {
    Class {
        versions: [version, version],
    }
}

fn begin(entries: u32) -> Step {
    Step::Begin(Table::GENERATION.map(|table| (table, entries)).into())
}

fn execute(datapath: &mut KernelDatapath, steps: Vec<Step>) -> Result<(), Error> {
    datapath.execute(&Plan { steps })
}

/// Directory of the pins of this layout.
fn layout() -> String {
    format!("v{LAYOUT}")
}

/// `bpftool`-free view of a device's programs.
fn filters(device: &str) -> String {
    run("tc", &format!("filter show dev {device} ingress"))
        + &run("tc", &format!("filter show dev {device} egress"))
}

#[test]
fn a_generation_is_filled_unseen_and_then_selected() {
    let Some(place) = Place::new() else { return };
    let mut datapath = place.open(AttachMode::Auto);
    assert_eq!(datapath.capacity(Table::Class), None);

    let fill = |entries, count: u8, version| {
        let mut steps = vec![begin(entries)];
        steps.extend((0..count).map(|last| write(Table::Class, &address(last), &class(version))));
        steps.extend((0..count).map(|last| {
            let key = PrefixKey::host(address(last));
            write(Table::Prefix, &key, &class(version))
        }));
        steps.extend((0..count).map(|last| {
            let key = VerdictKey {
                row: last.into(),
                class: 7,
            };
            write(
                Table::Verdict,
                &key,
                &Segment {
                    base: version,
                    count: 1,
                },
            )
        }));
        steps.extend((0..count).map(|last| {
            let range = weir_common::abi::Range {
                first: version,
                ..Default::default()
            };
            write(Table::Range, &u32::from(last), &range)
        }));
        steps
    };
    let first = |datapath: &KernelDatapath| {
        let classes = datapath.dump(Table::Class).expect("dump");
        classes.get(address(3).as_bytes()).cloned()
    };

    let mut steps = fill(100, 90, 1);
    steps.push(Step::Select);
    execute(&mut datapath, steps).expect("first generation");
    assert_eq!(datapath.control(control::SELECTED), 1);
    for table in [Table::Class, Table::Prefix, Table::Verdict, Table::Range] {
        let entries = datapath.dump(table).expect("read").len();
        assert_eq!(
            (entries, datapath.capacity(table)),
            (90, Some(100)),
            "{table:?}"
        );
    }

    execute(&mut datapath, fill(200, 150, 2)).expect("second generation");
    assert_eq!(first(&datapath), Some(class(1).as_bytes().to_vec()));
    execute(&mut datapath, vec![Step::Select]).expect("select");
    assert_eq!(datapath.control(control::SELECTED), 0);
    assert_eq!(first(&datapath), Some(class(2).as_bytes().to_vec()));
    let old = place.directory().join(layout()).join("gen1");
    assert_eq!(
        old.read_dir().expect("directory").count(),
        0,
        "old maps are released"
    );

    let delete = Step::Delete {
        table: Table::Class,
        key: address(3).as_bytes().into(),
    };
    execute(&mut datapath, vec![delete.clone(), delete, Step::Wait]).expect("delete twice");
    assert_eq!(first(&datapath), None);
}

#[test]
fn a_full_table_is_named() {
    let Some(place) = Place::new() else { return };
    let mut datapath = place.open(AttachMode::Auto);
    for table in [Table::Class, Table::Prefix] {
        let mut steps = vec![begin(8)];
        steps.extend((0..200).map(|last| match table {
            Table::Class => write(table, &address(last), &class(1)),
            _ => write(table, &PrefixKey::host(address(last)), &class(1)),
        }));
        let error = execute(&mut datapath, steps).expect_err("too much");
        assert!(
            matches!(error, Error::TableFull { table: name, capacity: 8 } if name == table.name()),
            "{error}"
        );
    }
    let error = execute(&mut datapath, vec![Step::Select, Step::Select]).expect_err("twice");
    assert!(matches!(error, Error::BadPlan(_)), "{error}");
}

#[test]
fn everything_survives_the_agent() {
    let Some(place) = Place::new() else { return };
    for mode in place.modes().iter().copied() {
        let name = format!("sv{mode}");
        let ifindex = veth(&name);
        let mut datapath = place.open(mode);
        assert_eq!(datapath.attach_mode(), mode);
        datapath.attach(ifindex).expect("attach");
        let state = BackendState {
            fingerprint: 77,
            state: 1,
            sets: 1,
        };
        let steps = vec![
            begin(16),
            write(Table::Class, &address(1), &class(5)),
            Step::Select,
            write(Table::Backend, &9_u32, &state),
            Step::BumpEpoch,
            Step::Control {
                index: control::SAMPLE,
                value: 10,
            },
        ];
        execute(&mut datapath, steps).expect("write");
        datapath.heartbeat(4711);
        let epoch = datapath.control(control::EPOCH);
        let classes = datapath.dump(Table::Class).expect("dump");
        drop(datapath);

        let mut datapath = place.open(mode);
        assert!(datapath.attached().expect("list").contains(&ifindex));
        assert_eq!(datapath.control(control::EPOCH), epoch);
        assert_eq!(datapath.control(control::SAMPLE), 10);
        assert_eq!(datapath.control(control::HEARTBEAT), 4711);
        assert_eq!(datapath.backends().expect("backends"), [(9, state)]);
        assert_eq!(datapath.dump(Table::Class).expect("dump"), classes);
        assert_eq!(classes.len(), 1);
        // A change outside of a generation goes to the one that programs read.
        execute(
            &mut datapath,
            vec![write(Table::Class, &address(2), &class(6))],
        )
        .expect("write");
        assert_eq!(datapath.dump(Table::Class).expect("dump").len(), 2);
        datapath.attach(ifindex).expect("attach again");
        datapath.detach(ifindex).expect("detach");
        assert!(!datapath.attached().expect("list").contains(&ifindex));
        drop(datapath);
        datapath::cleanup(&place.directory()).expect("clean up");
    }
}

#[test]
fn another_form_of_attachment_is_taken_over() {
    let Some(place) = Place::new() else { return };
    if !place.modes().contains(&AttachMode::Tcx) {
        return println!("this kernel has one form only");
    }
    let ifindex = veth("over");
    for (before, after) in [
        (AttachMode::Tcx, AttachMode::Clsact),
        (AttachMode::Clsact, AttachMode::Tcx),
    ] {
        place.open(before).attach(ifindex).expect("attach");
        let mut datapath = place.open(after);
        assert!(datapath.attached().expect("list").contains(&ifindex));
        datapath.attach(ifindex).expect("attach");
        assert_eq!(
            filters("over").contains("weir_from_pod"),
            after == AttachMode::Clsact
        );
        let links = place
            .directory()
            .join(layout())
            .join("links")
            .read_dir()
            .expect("links")
            .count();
        assert_eq!(links, if after == AttachMode::Tcx { 2 } else { 0 });
    }
}

#[test]
fn uplinks_have_programs_of_their_own_and_addresses() {
    let Some(place) = Place::new() else { return };
    let (pod, uplink) = (veth("pod"), veth("uplink"));
    let device = |last| Device {
        v4: address(last),
        ports: [61000, 65535],
        ..Device::default()
    };
    let mut modes = place.modes().to_vec();
    // And back to the first, over what the others left.
    modes.push(modes[0]);
    for (n, mode) in (1..).zip(modes) {
        let mut datapath = place.open(mode);
        let before = datapath.attached_nets().expect("list");
        assert_eq!(before.contains(&uplink), n > 1, "{mode:?}");
        datapath
            .set_nets(&[(uplink, device(n))].into())
            .expect("set");
        datapath.attach(pod).expect("attach");
        datapath.attach_net(uplink).expect("attach");
        datapath.attach_net(uplink).expect("attach again");
        assert_eq!(datapath.attached().expect("list"), [pod].into());
        assert_eq!(datapath.attached_nets().expect("list"), [uplink].into());
        let clsact = mode == AttachMode::Clsact;
        assert_eq!(filters("uplink").contains("weir_from_net"), clsact);
        assert!(!filters("uplink").contains("weir_from_pod"));
        // An uplink that is none any more keeps its programs, and so its address.
        datapath.set_nets(&BTreeMap::new()).expect("set");
        assert_eq!(datapath.nets().expect("read"), [(uplink, device(n))].into());
    }
    let mut datapath = place.open(place.modes()[0]);
    datapath.detach(uplink).expect("detach");
    assert!(datapath.attached_nets().expect("list").is_empty());
    datapath.set_nets(&BTreeMap::new()).expect("set");
    assert!(datapath.nets().expect("read").is_empty());
    datapath.attach_net(uplink).expect("attach");
    drop(datapath);
    datapath::cleanup(&place.directory()).expect("clean up");
    assert!(!filters("uplink").contains("weir"));
    let links = run("tc", "qdisc show dev uplink");
    assert!(!links.contains("clsact"), "{links}");
}

#[test]
fn foreign_filters_stay() {
    let Some(place) = Place::new() else { return };
    let ifindex = veth("foreign");
    run("tc", "qdisc add dev foreign clsact");
    // A classic program (return all) of the same kind and priority as Weir's.
    let program = place.file("bytecode");
    std::fs::write(&program, "1,6 0 0 4294967295").expect("write");
    let bytecode = program.display();
    run(
        "tc",
        &format!("filter add dev foreign ingress prio 1 bpf bytecode-file {bytecode} flowid 1:1"),
    );
    std::fs::remove_file(&program).expect("remove");
    let before = filters("foreign");
    assert!(before.contains("bytecode"));
    let mut datapath = place.open(AttachMode::Clsact);
    datapath.attach(ifindex).expect("attach");
    assert!(filters("foreign").contains("weir_from_pod"));
    assert_eq!(datapath.attached().expect("list"), [ifindex].into());
    datapath.detach(ifindex).expect("detach");
    assert_eq!(filters("foreign"), before);
}

#[test]
fn one_agent_per_directory() {
    let Some(place) = Place::new() else { return };
    let first = place.open(AttachMode::Auto);
    let error = KernelDatapath::open(&place.options(AttachMode::Auto)).expect_err("second agent");
    assert!(matches!(error, Error::SecondAgent(_)), "{error}");
    let error = datapath::cleanup(&place.directory()).expect_err("agent runs");
    assert!(matches!(error, Error::SecondAgent(_)), "{error}");
    drop(first);
    let elsewhere = Options {
        bpffs: PathBuf::from("/proc/weir"),
        ..place.options(AttachMode::Auto)
    };
    let error = KernelDatapath::open(&elsewhere).expect_err("not a bpffs");
    assert!(matches!(error, Error::MissingBpffs { .. }), "{error}");
}

#[test]
fn a_pin_of_another_shape_is_refused() {
    let Some(place) = Place::new() else { return };
    drop(place.open(AttachMode::Auto));
    let maps = place.directory().join(layout()).join("maps");
    std::fs::remove_file(maps.join("flow")).expect("remove");
    std::fs::rename(maps.join("fragment"), maps.join("flow")).expect("rename");
    let error = KernelDatapath::open(&place.options(AttachMode::Auto)).expect_err("wrong map");
    assert!(
        matches!(&error, Error::ForeignPin { path, .. } if path.ends_with("flow")),
        "{error}"
    );
}

#[test]
fn links_of_lost_devices_are_not_trusted() {
    let Some(place) = Place::new() else { return };
    if !place.modes().contains(&AttachMode::Tcx) {
        return println!("this kernel has no links for devices");
    }
    let mut datapath = place.open(AttachMode::Tcx);
    let ifindex = veth("gone");
    datapath.attach(ifindex).expect("attach");
    let links = place.directory().join(layout()).join("links");
    assert_eq!(links.read_dir().expect("links").count(), 2);
    run("ip", "link del gone");
    // The index comes back with another device.
    run(
        "ip",
        &format!("link add back index {ifindex} type veth peer name backp"),
    );
    assert!(datapath.attached().expect("list").is_empty());
    assert_eq!(links.read_dir().expect("links").count(), 0);
    datapath.attach(ifindex).expect("attach");
    run("ip", "link del back");
    run(
        "ip",
        &format!("link add back index {ifindex} type veth peer name backp"),
    );
    datapath
        .attach(ifindex)
        .expect("attach over a dead link's pin");
    assert_eq!(datapath.attached().expect("list"), [ifindex].into());
}

#[test]
fn a_device_that_is_gone_is_told_apart() {
    let Some(place) = Place::new() else { return };
    for mode in place.modes().iter().copied() {
        let mut datapath = place.open(mode);
        let error = datapath.attach(12_345).expect_err("no such device");
        assert!(error.is_device_gone(), "{mode}: {error}");
        datapath.detach(12_345).expect("nothing to detach");
    }
}

#[test]
fn cleanup_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    for mode in place.modes().iter().copied() {
        let name = format!("cl{mode}");
        let ifindex = veth(&name);
        let mut datapath = place.open(mode);
        datapath.attach(ifindex).expect("attach");
        execute(&mut datapath, vec![begin(16), Step::Select]).expect("select");
        drop(datapath);
        for _ in 0..2 {
            datapath::cleanup(&place.directory()).expect("clean up");
        }
        assert!(!place.directory().exists());
        assert!(!run("tc", &format!("qdisc show dev {name}")).contains("clsact"));
    }
    datapath::cleanup(Path::new("/nowhere/at/all")).expect("nothing to clean up");
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let Some(place) = Place::new() else { return };
    let mut datapath = place.open(AttachMode::Auto);
    execute(&mut datapath, vec![begin(16), Step::Select]).expect("select");
    let mut packet = vec![0; 64];
    packet[12..14].copy_from_slice(&[0x88, 0xcc]);
    let total = |datapath: &KernelDatapath| {
        let counters = datapath.counters().expect("counters");
        counters
            .iter()
            .map(|(_, _, counter)| counter.packets)
            .sum::<u64>()
    };
    let output = datapath
        .dry_run(Hook::FromPod, &TestRun::new(&packet, 0, 0))
        .expect("dry run");
    assert_eq!(output.packet.len(), packet.len());
    assert_eq!(total(&datapath), 0);
    let live = datapath
        .test_run(Hook::FromPod, &TestRun::new(&packet, 0, 0))
        .expect("test run");
    assert_eq!(live.action, output.action);
    assert_eq!(total(&datapath), 1);
    let mut flows = 0;
    datapath.for_each_flow(|_, _| flows += 1).expect("flows");
    assert_eq!(flows, 0);
    assert!([100, 250, 300, 1000].contains(&datapath.ticks_per_second()));
}

/// Packets that the program at the ingress of pod devices has judged.
fn judged(datapath: &KernelDatapath) -> u64 {
    let counters = datapath.counters().expect("counters");
    let from_pod = counters
        .iter()
        .filter(|(hook, _, _)| *hook == Hook::FromPod);
    from_pod.map(|(_, _, counter)| counter.packets).sum()
}

/// Sends datagrams out of a device until told to stop; returns how many.
fn send_until(stop: &AtomicBool, device: &str) -> u64 {
    use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("socket");
    setsockopt(&socket, BindToDevice, &device.into()).expect("bind to device");
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        socket.send_to(b"x", "10.9.0.2:9").expect("send");
        sent += 1;
        std::thread::sleep(Duration::from_micros(50));
    }
    sent
}

#[test]
fn no_packet_goes_unjudged_while_agents_change() {
    let Some(place) = Place::new() else { return };
    for mode in place.modes().iter().copied() {
        let name = format!("ng{mode}");
        let peer = format!("{name}p");
        let ifindex = veth(&name);
        for device in [&name, &peer] {
            // Nothing but the test's own packets.
            let switch = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
            std::fs::write(switch, "1").expect("disable IPv6");
        }
        run("ip", &format!("address add 10.9.0.1/24 dev {peer}"));
        run("ip", &format!("link set {peer} up"));
        run(
            "ip",
            &format!("neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev {peer}"),
        );

        let mut datapath = place.open(mode);
        execute(&mut datapath, vec![begin(16), Step::Select]).expect("select");
        datapath.attach(ifindex).expect("attach");
        let before = judged(&datapath);
        let stop = AtomicBool::new(false);
        let (sent, datapath) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_until(&stop, &peer));
            for _ in 0..4 {
                drop(datapath);
                datapath = place.open(mode);
                datapath.attach(ifindex).expect("attach again");
                execute(&mut datapath, vec![begin(16), Step::Select]).expect("select");
            }
            stop.store(true, Ordering::Relaxed);
            (sender.join().expect("sender"), datapath)
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(sent > 100, "only {sent} packets");
        assert_eq!(judged(&datapath) - before, sent, "{mode}");
        drop(datapath);
        datapath::cleanup(&place.directory()).expect("clean up");
    }
}

/// Leaves this thread the given capabilities only.
fn keep_capabilities(keep: rustix::thread::CapabilitySet) {
    let sets = rustix::thread::CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).expect("capabilities");
}

#[test]
fn three_capabilities_are_enough() {
    use rustix::thread::CapabilitySet;
    let Some(place) = Place::new() else { return };
    let ifindex = veth("cap");
    keep_capabilities(CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN);
    let modes = place.modes();
    for mode in modes.iter().copied() {
        for _ in 0..2 {
            let mut datapath = place.open(mode);
            datapath.attach(ifindex).expect("attach");
            execute(&mut datapath, vec![begin(16), Step::Select, Step::Wait]).expect("select");
            assert_eq!(datapath.attached().expect("list"), [ifindex].into());
            datapath.dump(Table::Class).expect("dump");
            datapath.counters().expect("counters");
            datapath.events().expect("events");
            for feature in datapath::probe(&datapath) {
                let expected = feature.name != "tcx" || modes.contains(&AttachMode::Tcx);
                assert_eq!(feature.present, expected, "{}", feature.name);
            }
        }
        datapath::cleanup(&place.directory()).expect("clean up");
    }
    for (missing, name) in [
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
        (CapabilitySet::BPF, "CAP_BPF"),
    ] {
        let all = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN;
        let (sender, receiver) = std::sync::mpsc::channel();
        let options = place.options(AttachMode::Auto);
        std::thread::spawn(move || {
            keep_capabilities(all - missing);
            sender
                .send(KernelDatapath::open(&options).map(drop))
                .expect("send");
        });
        let error = receiver
            .recv()
            .expect("answer")
            .expect_err("lacks a capability");
        assert!(
            matches!(&error, Error::Capability { missing, .. } if missing == name),
            "without {name}: {error}"
        );
    }
}

#[test]
fn features_are_told() {
    let Some(place) = Place::new() else { return };
    let datapath = place.open(AttachMode::Auto);
    let features: BTreeMap<_, _> = datapath::probe(&datapath)
        .into_iter()
        .map(|feature| (feature.name, feature.present))
        .collect();
    assert!(features["test_run"]);
    let mode = datapath.attach_mode();
    println!("attaches by {mode}");
    assert_eq!(features["tcx"], mode == AttachMode::Tcx);
    drop(datapath);
    // A kernel without tcx says so when it is asked for, not when the first pod comes.
    match KernelDatapath::open(&place.options(AttachMode::Tcx)) {
        Ok(_) => assert_eq!(mode, AttachMode::Tcx),
        Err(error) => assert!(
            matches!(error, Error::NoTcx) && mode == AttachMode::Clsact,
            "{error}"
        ),
    }
}

#[test]
fn tcx_is_refused_where_the_kernel_has_none_and_used_where_it_has() {
    let Some(place) = Place::new() else { return };
    let has_tcx = place.open(AttachMode::Auto).attach_mode() == AttachMode::Tcx;
    match KernelDatapath::open(&place.options(AttachMode::Tcx)) {
        Ok(datapath) => assert!(has_tcx && datapath.attach_mode() == AttachMode::Tcx),
        Err(error) => {
            let remedy = "start the agent with `--attach auto` or `--attach clsact`";
            assert!(!has_tcx && error.to_string().contains(remedy), "{error}");
        }
    }
}
