//! Something that packets can be sent past: the simulator, or the programs in the kernel.

use aya::maps::{MapData, RingBuf};
use weir::datapath::{KernelDatapath, TestRun};
use weir_common::abi::{Event, FlowKey, Hook, Verdict};
use weir_common::reason::Reason;
use zerocopy::FromBytes;

use crate::simulator::{Simulator, Step};

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// It did not pass.
    pub dropped: bool,
    /// Rule of the event that tells of it.
    pub rule: u32,
}

/// Both hooks of a node's pods. Every first packet must be sampled (`control::SAMPLE` is 1).
pub trait Hooks {
    /// Sends a packet past a hook of device `ifindex`, coming from device `from` (0: born on the node).
    ///
    /// # Errors
    /// What is wrong with the hooks themselves, which are not to judge one packet in two ways.
    fn send(
        &mut self,
        hook: Hook,
        ifindex: u32,
        from: u32,
        packet: &[u8],
    ) -> Result<Answer, String>;

    /// Forgets a flow.
    ///
    /// # Errors
    /// When the table cannot be written.
    fn forget(&mut self, flow: &FlowKey) -> Result<(), String>;
}

impl Hooks for Simulator {
    fn send(
        &mut self,
        hook: Hook,
        ifindex: u32,
        from: u32,
        packet: &[u8],
    ) -> Result<Answer, String> {
        let step = Step {
            hook,
            ifindex,
            ingress_ifindex: from,
            clock: 0,
            random: 0,
        };
        let (verdict, _, _) = self.run(step, packet);
        let events = self.take_events();
        let [event] = events.as_slice() else {
            return Err(format!("{} events", events.len()));
        };
        Ok(Answer {
            dropped: verdict == Verdict::Drop,
            rule: event.rule,
        })
    }

    fn forget(&mut self, _: &FlowKey) -> Result<(), String> {
        self.forget_flows();
        Ok(())
    }
}

/// The loaded programs.
pub struct Loaded<'k> {
    /// The data path, opened for replay.
    pub datapath: &'k KernelDatapath,
    /// Its events.
    pub events: RingBuf<MapData>,
}

impl Hooks for Loaded<'_> {
    /// A dry run first: it must say the same and leave nothing.
    fn send(
        &mut self,
        hook: Hook,
        ifindex: u32,
        from: u32,
        packet: &[u8],
    ) -> Result<Answer, String> {
        let run = TestRun::new(packet, ifindex, from);
        let dry = self
            .datapath
            .dry_run(hook, &run)
            .map_err(|error| error.to_string())?;
        if self.events.next().is_some() {
            return Err("a dry run sends events".to_owned());
        }
        let live = self
            .datapath
            .test_run(hook, &run)
            .map_err(|error| error.to_string())?;
        if dry.action != live.action {
            return Err(format!("dry run {}, live run {}", dry.action, live.action));
        }
        let event = self.events.next().ok_or("no event")?;
        let event = Event::read_from_bytes(&event).map_err(|error| error.to_string())?;
        if dry.reason != Reason::from_u8(event.reason) {
            return Err(format!("dry run {:?}, event {event:?}", dry.reason));
        }
        Ok(Answer {
            dropped: live.action == TC_ACT_SHOT,
            rule: event.rule,
        })
    }

    fn forget(&mut self, flow: &FlowKey) -> Result<(), String> {
        let done = self.datapath.delete_flow(flow);
        done.map(drop).map_err(|error| error.to_string())
    }
}

/// See [`weir::datapath::RunOutput::action`].
const TC_ACT_SHOT: i32 = 2;
