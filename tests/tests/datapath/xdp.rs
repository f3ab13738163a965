//! The program in drivers: veths have one that takes it, bridges none.

use nix::net::if_::if_nametoindex;
use weir::datapath::{self, AttachMode, KernelDatapath, Options, XdpState};
use weir_tests::kernel::{Place, veth};
use weir_tests::xdp::Constant;

use super::{layout, run};

fn open(place: &Place, xdp: bool) -> KernelDatapath {
    let options = Options {
        xdp,
        ..place.options(AttachMode::Auto)
    };
    KernelDatapath::open(&options).expect("open")
}

fn attach(datapath: &KernelDatapath, ifindex: u32) -> Option<XdpState> {
    datapath.attach_xdp(ifindex).expect("attach")
}

/// The name and number of a device's program, if it has one in its driver.
fn program(device: &str) -> Option<(String, String)> {
    let shown = run("ip", &format!("-d link show dev {device}"));
    let (_, after) = shown.split_once("prog/xdp id ")?;
    let words: Vec<_> = after.split_whitespace().collect();
    Some((words[2].to_owned(), words[0].to_owned()))
}

fn links(place: &Place) -> Vec<String> {
    let directory = place.directory().join(layout()).join("links");
    let entries = directory.read_dir().expect("links");
    let names = entries.map(|entry| entry.expect("a link").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn drivers_keep_the_program_until_it_is_unwanted() {
    let Some(place) = Place::new() else { return };
    let uplink = veth("uplink");
    let first = open(&place, true);
    assert_eq!(attach(&first, uplink), Some(XdpState::Attached));
    assert_eq!(attach(&first, uplink), Some(XdpState::Attached));
    assert_eq!(links(&place), [format!("{uplink}_xdp_net")]);
    let before = program("uplink").expect("a program");
    assert_eq!(before.0, "xdp_net");
    first.detach_unwanted_xdp().expect("nothing");
    drop(first);
    // Without an agent it stays; the next puts its own in its place.
    assert_eq!(program("uplink").as_ref(), Some(&before));
    let second = open(&place, true);
    assert_eq!(program("uplink").as_ref(), Some(&before));
    assert_eq!(attach(&second, uplink), Some(XdpState::Attached));
    let after = program("uplink").expect("a program");
    assert_ne!(after.1, before.1);
    drop(second);
    let off = open(&place, false);
    assert_eq!(attach(&off, uplink), None);
    off.detach_unwanted_xdp().expect("detach");
    assert_eq!(program("uplink"), None);
    assert!(links(&place).is_empty());
}

#[test]
fn an_index_that_returns_gets_a_program_again() {
    let Some(place) = Place::new() else { return };
    let datapath = open(&place, true);
    let uplink = veth("uplink");
    attach(&datapath, uplink);
    run("ip", "link del uplink");
    let made = format!("link add uplink index {uplink} type veth peer name again");
    run("ip", &made);
    assert_eq!(attach(&datapath, uplink), Some(XdpState::Attached));
    assert!(program("uplink").is_some());
}

#[test]
fn what_others_put_there_stays() {
    let Some(place) = Place::new() else { return };
    let uplink = veth("uplink");
    let theirs = Constant::passing(uplink).expect("their program");
    let before = program("uplink");
    let datapath = open(&place, true);
    assert_eq!(attach(&datapath, uplink), Some(XdpState::Foreign));
    drop(datapath);
    datapath::cleanup(&place.directory()).expect("clean up");
    assert_eq!(program("uplink"), before);
    drop(theirs);
}

#[test]
fn generic_xdp_is_not_for_us() {
    let Some(place) = Place::new() else { return };
    run("ip", "link add uplink type bridge");
    let uplink = if_nametoindex("uplink").expect("index");
    let datapath = open(&place, true);
    assert_eq!(attach(&datapath, uplink), Some(XdpState::Unsupported));
    let shown = run("ip", "-d link show dev uplink");
    assert!(!shown.contains("xdp"), "{shown}");
    // A driver that could, but for an MTU that does not fit a page.
    let wide = veth("wide");
    run("ip", "link set wide mtu 9000");
    run("ip", "link set widep mtu 9000");
    let state = attach(&datapath, wide);
    assert!(matches!(state, Some(XdpState::Refused(_))), "{state:?}");
    run("ip", "link set wide mtu 1500");
    run("ip", "link set widep mtu 1500");
    assert_eq!(attach(&datapath, wide), Some(XdpState::Attached));
}

#[test]
fn cleaning_up_takes_it_away_at_once() {
    let Some(place) = Place::new() else { return };
    let uplink = veth("uplink");
    let datapath = open(&place, true);
    attach(&datapath, uplink);
    drop(datapath);
    datapath::cleanup(&place.directory()).expect("clean up");
    assert_eq!(program("uplink"), None);
}
