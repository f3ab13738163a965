//! Packets: any bytes get a verdict, and a piece of a packet gets no better one than the whole.

use weir::compile::compile;
use weir::model::{Protocol, Rule};
use weir::plan::{MemoryMaps, Planner};
use weir_common::abi::{Hook, Verdict};
use weir_common::reason::Reason;
use weir_tests::fixture::{block, policy, snapshot, to};
use weir_tests::packets::checksum_error;
use weir_tests::simulator::{Simulator, Step};

/// Devices of two pods, and an uplink.
const DEVICES: [u32; 3] = [11, 12, 2];
const TICKS_PER_SECOND: u32 = 250;
/// Packets of one input.
const MOST: usize = 6;

/// A packet, and how it comes by.
struct Passage<'b> {
    step: Step,
    frame: &'b [u8],
}

thread_local! {
    static MAPS: MemoryMaps = maps();
}

/// Two pods, of which one may send some of what it likes and the other take some of what comes, and Services of all shapes.
fn maps() -> MemoryMaps {
    let tcp = (Protocol::Tcp, 8080, 8080);
    let udp = (Protocol::Udp, 8080, 8090);
    let (open, narrow) = (
        block("10.0.2.0/24", &["10.0.2.128/25"]),
        block("fd00:2::/64", &[]),
    );
    let egress: Vec<Rule> = vec![to("b", &[tcp, udp]), open, narrow];
    let ingress = vec![to("a", &[tcp, (Protocol::Udp, 1, 1000)])];
    let policies = vec![
        policy("a", "a", Some(vec![]), Some(egress)),
        policy("b", "b", Some(ingress), None),
    ];
    let mut maps = MemoryMaps::new();
    let tables = compile(&snapshot([DEVICES[0], DEVICES[1]], policies));
    let plan = Planner::new().plan(&tables).expect("a plan");
    maps.execute(&plan).expect("maps with room");
    maps
}

/// The packets of an input: a byte that says where each comes by, one for its length, and its bytes. Time goes on between them.
fn passages(mut bytes: &[u8]) -> Vec<Passage<'_>> {
    let mut passages = Vec::new();
    let mut clock = 1000;
    while let [place, length, rest @ ..] = bytes
        && passages.len() < MOST
    {
        let (frame, behind) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = behind;
        clock += if place & 0x80 == 0 {
            1
        } else {
            40 * TICKS_PER_SECOND
        };
        let (hook, device) = match place & 3 {
            0 => (Hook::FromPod, DEVICES[usize::from(place >> 2 & 1)]),
            1 => (Hook::ToPod, DEVICES[usize::from(place >> 2 & 1)]),
            2 => (Hook::FromNet, DEVICES[2]),
            _ => (Hook::ToNet, DEVICES[2]),
        };
        // Where it came in: a device, or this host itself.
        let ingress_ifindex = match hook {
            Hook::FromPod | Hook::FromNet => device,
            Hook::ToPod | Hook::ToNet => {
                [DEVICES[0], DEVICES[1], DEVICES[2], 0][usize::from(place >> 3 & 3)]
            }
        };
        let step = Step {
            hook,
            ifindex: device,
            ingress_ifindex,
            clock,
            random: u32::from(*length) << 24,
        };
        passages.push(Passage { step, frame });
    }
    passages
}

/// What becomes of a frame after those before it.
fn after(former: &[Passage<'_>], step: Step, frame: &[u8]) -> (Verdict, u8, Vec<u8>) {
    let simulator = Simulator::new(MAPS.with(Clone::clone), TICKS_PER_SECOND);
    for passage in former {
        simulator.run(passage.step, passage.frame);
    }
    simulator.run(step, frame)
}

/// See the module.
pub(crate) fn check(bytes: &[u8]) {
    // What of the last packet arrives.
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    let passages = passages(bytes);
    let Some((Passage { step, frame }, former)) = passages.split_last() else {
        return;
    };
    let (verdict, number, made) = after(former, *step, frame);
    let reason = Reason::from_u8(number).expect("a reason");
    match verdict {
        Verdict::Pass => assert!(!reason.is_drop(), "passed: {reason:?}"),
        Verdict::Drop => assert!(reason.is_drop(), "dropped: {reason:?}"),
        Verdict::Return => {}
    }
    if checksum_error(frame).is_none() && verdict != Verdict::Drop {
        assert_eq!(checksum_error(&made), None, "{reason:?}");
    }
    assert_eq!(
        after(former, *step, frame),
        (verdict, number, made),
        "twice the same"
    );

    let at_pod = matches!(step.hook, Hook::FromPod | Hook::ToPod);
    let cut = usize::from(*cut) % frame.len().max(1);
    if at_pod && verdict == Verdict::Drop {
        let (piece, why, _) = after(former, *step, &frame[..cut]);
        assert_eq!(
            piece,
            Verdict::Drop,
            "{reason:?}, but of {cut} bytes {:?}",
            Reason::from_u8(why)
        );
    }
    // Bytes behind the end that the IP header tells are nobody's.
    if let Some(end) = end(frame).filter(|end| at_pod && *end <= frame.len()) {
        let mut other = frame.to_vec();
        other.resize(frame.len().max(end + 24), 0);
        let first = after(former, *step, &other);
        other[end..].fill(0xff);
        let second = after(former, *step, &other);
        let reasons = [first.1, second.1].map(Reason::from_u8);
        assert_eq!(
            first.0, second.0,
            "by what is behind byte {end}: {reasons:?}"
        );
    }
}

/// Where a frame's IP packet ends, if it has its header.
fn end(frame: &[u8]) -> Option<usize> {
    let length = |at: usize| {
        let bytes = frame.get(at..at + 2)?.try_into().ok()?;
        Some(usize::from(u16::from_be_bytes(bytes)))
    };
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(14 + length(16)?.max(20)),
        [0x86, 0xdd] => Some(54 + length(18)?),
        _ => None,
    }
}
