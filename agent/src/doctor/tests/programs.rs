//! Programs of others.

use super::{only, sound};
use crate::datapath::{Attached, Holder, OnSockets};
use crate::doctor::{Facts, Harm, findings};
use crate::netlink::XdpMode;

const FILTER: Holder = Holder::Filter {
    priority: 1,
    handle: 0x1f,
};

fn attached(program: u32, own: bool, by: Holder) -> Attached {
    Attached {
        program,
        name: own.then(|| "from_net".to_owned()),
        own,
        by,
    }
}

fn on_sockets(hook: &'static str, attached: Attached) -> OnSockets {
    OnSockets {
        hook,
        cgroup: "/cgroup".into(),
        attached,
    }
}

/// Programs at an uplink's ingress, whether it is Weir's that comes after the other's, and the fix.
#[test]
fn order_tells_which_programs_do_harm() {
    let own = || attached(1, true, Holder::Link(1));
    let other = |by| attached(2, false, by);
    let (certain, possible) = (
        ("tc-program-before", Harm::Certain),
        ("tc-program-after", Harm::Possible),
    );
    for (programs, expected, fix) in [
        (
            vec![other(Holder::Link(7)), own()],
            certain,
            "bpftool link detach id 7",
        ),
        (
            vec![own(), other(Holder::Link(7))],
            possible,
            "bpftool link detach id 7",
        ),
        (
            vec![own(), other(FILTER)],
            possible,
            "tc filter del dev eth0 ingress pref 1 handle 0x1f bpf",
        ),
        (
            vec![own(), other(Holder::Hook)],
            possible,
            "bpftool net detach tcx_ingress dev eth0 # takes the last one there; bpftool 7.5 or newer",
        ),
        // An agent will be first.
        (
            vec![other(Holder::Link(7))],
            possible,
            "bpftool link detach id 7",
        ),
    ] {
        let mut facts = sound();
        facts.devices[1].ingress = programs.clone();
        let found = only(&facts);
        assert_eq!((found.name, found.harm), expected, "{programs:?}");
        assert_eq!(found.fix, fix);
    }
}

#[test]
fn programs_in_drivers_do_harm_where_weir_wants_to_be() {
    let off = "ip link set dev eth0 xdpgeneric off";
    for (wanted, by, harm, fix) in [
        (true, Holder::Hook, Harm::Certain, off.to_owned()),
        (false, Holder::Hook, Harm::Possible, off.to_owned()),
        (
            false,
            Holder::Link(7),
            Harm::Possible,
            "bpftool link detach id 7".to_owned(),
        ),
        (
            true,
            Holder::Unknown,
            Harm::Certain,
            format!(
                "{off} # if a link holds it: `bpftool link detach id` with what `bpftool link show` tells"
            ),
        ),
    ] {
        let mut facts = sound();
        facts.devices[1].wants_xdp = wanted;
        facts.devices[1].xdp = vec![(XdpMode::Generic, attached(2, false, by))];
        let found = only(&facts);
        assert_eq!((found.name, found.harm), ("xdp-program", harm));
        assert_eq!(found.fix, fix);
        facts.devices[1].xdp[0].1.own = true;
        assert_eq!(findings(&facts), []);
    }
}

#[test]
fn programs_of_sockets_are_compared_with_those_of_their_hook() {
    let own = |hook| on_sockets(hook, attached(1, true, Holder::Link(1)));
    let other = |hook| on_sockets(hook, attached(2, false, Holder::Hook));
    for (programs, name, hook) in [
        (
            vec![own("connect4"), other("connect4")],
            "cgroup-program-after",
            "connect4",
        ),
        (
            vec![other("connect4"), own("connect4")],
            "cgroup-program-before",
            "connect4",
        ),
        // Weir's will be last.
        (
            vec![own("connect4"), other("sendmsg4")],
            "cgroup-program-before",
            "sendmsg4",
        ),
    ] {
        let facts = Facts {
            sockets: programs,
            ..sound()
        };
        let found = only(&facts);
        let fix = format!("bpftool cgroup detach /cgroup {hook} id 2");
        assert_eq!((found.name, found.fix), (name, fix));
    }
}
