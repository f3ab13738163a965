//! The data path in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use aya::maps::{MapData, RingBuf};
use weir_common::abi::{
    Affinity, AffinityKey, BACKEND_GONE, BackendState, Counter, Device, Hook, Pair, control,
};
use weir_common::reason::Reason;
use zerocopy::{FromBytes, IntoBytes};

use super::attach::{self, Role};
use super::bpf::{self, Map, Shape, TestRun, TestRunOutput, map_type};
use super::control::{Control, StrayedWord};
use super::error::{During, Error, Result};
use super::object::{self, Capacities, Clock, Constants, Programs};
use super::packet_log::PacketLog;
use super::pins::Pins;
use super::probe;
use super::sock_diag::{self, Connected};
use super::sockets::{self, SocketOptions, Sockets};
use super::write::Generation;
use super::xdp::{self, Xdp, XdpState};
use crate::model::AttachMode;
use crate::plan::Table;

/// What the data path is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the agent's pins, in a BPF file system.
    pub bpffs: PathBuf,
    /// How to attach.
    pub attach: AttachMode,
    /// Most flows tracked at once. A map that an earlier agent pinned keeps its capacity.
    pub flow_capacity: u32,
    /// Most backends known at once. A map that an earlier agent pinned keeps its capacity.
    pub backend_capacity: u32,
    /// Load the programs so that equal packets give equal answers (no clock, no chance): for tests.
    pub replay: bool,
    /// Whose sockets are served; `None` for nobody's.
    pub sockets: Option<SocketOptions>,
    /// Whether uplinks get the program in their drivers.
    pub xdp: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bpffs: PathBuf::from("/sys/fs/bpf/weir"),
            attach: AttachMode::Auto,
            flow_capacity: 1 << 18,
            backend_capacity: 1 << 20,
            replay: false,
            sockets: None,
            xdp: false,
        }
    }
}

/// Pinned maps, loaded programs and attached devices of one agent.
#[derive(Debug)]
pub struct KernelDatapath {
    pub(super) control: Control,
    pub(super) roots: Generation,
    /// Maps that programs read; empty before the first `Select`.
    pub(super) selected: Generation,
    /// Maps of the other generation, while they are filled.
    pub(super) begun: Option<Generation>,
    pub(super) backend: Map,
    /// A map of maps and a map for it, to wait with.
    pub(super) barrier: (Map, Map),
    /// Tables whose kind of map has no batches in this kernel.
    pub(super) no_batch: BTreeSet<Table>,
    counter: Map,
    pub(super) flow: Map,
    /// Entries of `flow` that this agent has made; programs count theirs.
    pub(super) flows_entered: AtomicU64,
    device: Map,
    live: Programs,
    dry: Programs,
    sockets: Option<Sockets>,
    xdp: Option<Xdp>,
    tcx: bool,
    /// Devices that an earlier agent attached to in the way that this one does not use, by role.
    leftovers: [BTreeSet<u32>; 2],
    clock: Clock,
    pub(super) pins: Pins,
}

/// What [`KernelDatapath::dry_run`] and [`KernelDatapath::test_run`] return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutput {
    /// What the program returned: -1 goes on (`TC_ACT_UNSPEC`), 2 is dropped (`TC_ACT_SHOT`), 7 is redirected.
    pub action: i32,
    /// The Ethernet frame as the program left it.
    pub packet: Vec<u8>,
    /// Nanoseconds that the program ran.
    pub nanoseconds: u32,
    /// Why, of a dry run.
    pub reason: Option<Reason>,
}

impl KernelDatapath {
    /// Opens the data path: takes over what an earlier agent left in the directory, or makes it.
    ///
    /// Nothing that is attached changes yet: each device gets this agent's programs by [`Self::attach`].
    pub fn open(options: &Options) -> Result<Self> {
        if !object::is_embedded() {
            return Err(Error::NoObject);
        }
        let pins = Pins::take(&options.bpffs)?;
        pins.check()?;
        probe::require(&probe::REQUIRED)?;
        pins.make_roots()?;
        let capacities = Capacities {
            flow: options.flow_capacity,
            backend: options.backend_capacity,
        };
        let clock = object::clock(&pins, capacities)?;
        let constants = |dry_run| Constants {
            dry_run,
            replay: options.replay,
            ticks_per_second: clock.rate,
            ..Constants::default()
        };
        let live = Programs::load(&pins, capacities, constants(false))?;
        let dry = Programs::load(&pins, capacities, constants(true))?;
        // A help: a kernel that does not take it gets on without.
        let xdp = options
            .xdp
            .then(|| Xdp::load(&pins, capacities, constants(false)))
            .and_then(|loaded| {
                loaded
                    .inspect_err(|error| tracing::warn!("XDP is not used: {error}"))
                    .ok()
            });
        let sockets = options.sockets.as_ref();
        let sockets = sockets
            .map(|options| Sockets::load(&pins, capacities, options))
            .transpose()?;
        let tcx = options.attach != AttachMode::Clsact && attach::has_tcx(&live);
        if options.attach == AttachMode::Tcx && !tcx {
            return Err(Error::NoTcx);
        }
        let leftovers = [Role::Pod, Role::Net].map(|role| {
            if tcx {
                attach::attached_clsact(role).map(|(any, _)| any)
            } else {
                attach::attached_tcx(&pins, role)
            }
        });
        let [pods, nets] = leftovers;
        let leftovers = [pods?, nets?];
        let control =
            Control::map(&pins.open_map("control")?).during(|| "map the control array")?;
        let mut roots = Generation::new();
        let mut selected = Generation::new();
        let generation = u32::from(control.load(control::SELECTED) != 0);
        for table in Table::GENERATION {
            roots.insert(table, pins.open_map(table.name())?);
            if let Some(map) = pins.open_inner(generation, table)? {
                selected.insert(table, map);
            }
        }
        Ok(Self {
            control,
            roots,
            selected,
            begun: None,
            backend: pins.open_map("backend")?,
            barrier: barrier().during(|| "create the map to wait with")?,
            no_batch: BTreeSet::new(),
            counter: pins.open_map("counter")?,
            flow: pins.open_map("flow")?,
            flows_entered: AtomicU64::new(0),
            device: pins.open_map("device")?,
            live,
            dry,
            sockets,
            xdp,
            tcx,
            leftovers,
            clock,
            pins,
        })
    }

    /// Attaches both programs to a pod's device (before all others with tcx), or replaces those of an earlier agent without a gap.
    pub fn attach(&mut self, ifindex: u32) -> Result<()> {
        self.attach_as(Role::Pod, ifindex)
    }

    /// Attaches both programs to an uplink or tunnel device, as [`Self::attach`] does to a pod's. [`Self::set_nets`] comes first.
    pub fn attach_net(&mut self, ifindex: u32) -> Result<()> {
        self.attach_as(Role::Net, ifindex)
    }

    /// What programs know of uplinks and tunnel devices.
    pub fn nets(&self) -> Result<BTreeMap<u32, Device>> {
        let mut known = BTreeMap::new();
        let mut entries = self.device.entries();
        while let Some((key, value)) = entries
            .advance()
            .during(|| "read the addresses of the node's devices")?
        {
            known.insert(plain(key)?, plain(value)?);
        }
        Ok(known)
    }

    /// Tells programs as whom the node speaks on its uplinks and tunnel devices. What is known of others is forgotten, unless
    /// they still have programs.
    pub fn set_nets(&self, nets: &BTreeMap<u32, Device>) -> Result<()> {
        const ACTION: &str = "write the addresses of the node's devices";
        let mut known = self.nets()?;
        for (ifindex, device) in nets {
            if known.remove(ifindex).as_ref() != Some(device) {
                self.device
                    .update(ifindex.as_bytes(), device.as_bytes())
                    .during(|| ACTION)?;
            }
        }
        let attached = self.attached_nets()?;
        for ifindex in known.keys().filter(|ifindex| !attached.contains(ifindex)) {
            self.device.delete(ifindex.as_bytes()).during(|| ACTION)?;
        }
        Ok(())
    }

    fn attach_as(&mut self, role: Role, ifindex: u32) -> Result<()> {
        if self.tcx {
            attach::attach_tcx(&self.pins, &self.live, ifindex, role)?;
            if self.leftovers[role as usize].remove(&ifindex) {
                attach::detach_clsact(ifindex)?;
            }
        } else {
            attach::attach_clsact(&self.live, ifindex, role)?;
            if self.leftovers[role as usize].remove(&ifindex) {
                attach::detach_tcx(&self.pins, ifindex)?;
            }
        }
        Ok(())
    }

    /// Removes the programs from a device, however they were attached; that they are not there is no error.
    pub fn detach(&mut self, ifindex: u32) -> Result<()> {
        let left = self.leftovers.each_mut().map(|left| left.remove(&ifindex));
        let left = left.contains(&true);
        if self.tcx || left {
            attach::detach_tcx(&self.pins, ifindex)?;
        }
        if !self.tcx || left {
            attach::detach_clsact(ifindex)?;
        }
        Ok(())
    }

    /// Pods' devices that have both programs, this agent's or an earlier one's. Pins of devices that are gone are removed.
    pub fn attached(&self) -> Result<BTreeSet<u32>> {
        self.attached_as(Role::Pod)
    }

    /// The same for uplinks and tunnel devices.
    pub fn attached_nets(&self) -> Result<BTreeSet<u32>> {
        self.attached_as(Role::Net)
    }

    fn attached_as(&self, role: Role) -> Result<BTreeSet<u32>> {
        let attached = if self.tcx {
            attach::attached_tcx(&self.pins, role)?
        } else {
            attach::attached_clsact(role)?.1
        };
        Ok(&attached | &self.leftovers[role as usize])
    }

    /// Attaches the program in the driver of an uplink that has the other programs, see [`Self::attach_net`]; says whether it could.
    /// `None` where drivers get none.
    pub fn attach_xdp(&self, ifindex: u32) -> Result<Option<XdpState>> {
        let xdp = self.xdp.as_ref();
        xdp.map(|xdp| xdp.attach(&self.pins, ifindex)).transpose()
    }

    /// Where drivers get no program, removes what an earlier agent left in them.
    pub fn detach_unwanted_xdp(&self) -> Result<()> {
        match &self.xdp {
            Some(_) => Ok(()),
            None => xdp::detach(&self.pins),
        }
    }

    /// Attaches the programs for sockets, or replaces those of an earlier agent without a gap; where nobody's sockets are served,
    /// removes what it left.
    pub fn attach_sockets(&self) -> Result<()> {
        match &self.sockets {
            Some(sockets) => sockets.attach(&self.pins),
            None => sockets::detach(&self.pins),
        }
    }

    /// Whether all programs for sockets are attached.
    pub fn sockets_attached(&self) -> Result<bool> {
        let sockets = self.sockets.as_ref();
        sockets.map_or(Ok(false), |sockets| sockets.attached(&self.pins))
    }

    /// Ends connected UDP sockets of the node that came by a Service to a backend that is gone, see [`sock_diag`]; gives how many.
    pub fn end_stale_sockets(&self) -> Result<usize> {
        // Also where nobody's sockets are served any more: an earlier agent may have served some that are still there.
        let connected = self.pins.open_map("connected")?;
        let is_stale = |socket: Connected| {
            let mut pair = Pair::default();
            let mut state = BackendState::default();
            let found = connected
                .lookup(socket.cookie.as_bytes(), pair.as_mut_bytes())
                .and_then(|known| {
                    let backend = self
                        .backend
                        .lookup(pair.id.as_bytes(), state.as_mut_bytes())?;
                    Ok(known && backend)
                });
            // It may have been connected elsewhere since. What cannot be read now is asked for with the next plan.
            let same = (pair.backend, pair.backend_port) == (socket.address, socket.port);
            let gone = state.fingerprint != pair.fingerprint || state.state == BACKEND_GONE;
            found.unwrap_or(false) && same && gone
        };
        sock_diag::end_stale(is_stale).during(|| "end sockets whose backend is gone")
    }

    /// Whose sockets are served; `None` for nobody's.
    #[must_use]
    pub fn socket_options(&self) -> Option<&SocketOptions> {
        self.sockets.as_ref().map(|sockets| &sockets.options)
    }

    /// The programs for sockets, if anybody's are served.
    pub(super) const fn sockets(&self) -> Option<&Sockets> {
        self.sockets.as_ref()
    }

    /// The programs that are attached to devices.
    pub(super) const fn live(&self) -> &Programs {
        &self.live
    }

    /// How programs are attached: `Tcx` or `Clsact`.
    #[must_use]
    pub const fn attach_mode(&self) -> AttachMode {
        if self.tcx {
            AttachMode::Tcx
        } else {
            AttachMode::Clsact
        }
    }

    /// Ticks per second of the clock in [`Flow`].
    #[must_use]
    pub const fn ticks_per_second(&self) -> u32 {
        self.clock.rate
    }

    /// The clock in [`Flow`] now.
    #[must_use]
    pub fn now(&self) -> u32 {
        self.clock.now()
    }

    /// A word of the `control` array; 0 for one that does not exist.
    #[must_use]
    pub fn control(&self, index: u32) -> u64 {
        self.control.load(index)
    }

    /// Words of the `control` array that somebody else has changed.
    #[must_use]
    pub fn strayed_words(&self) -> Vec<StrayedWord> {
        self.control.strayed()
    }

    /// Stores in such words again what belongs there; what they were.
    pub fn restore_words(&self) -> Vec<StrayedWord> {
        self.control.restore()
    }

    /// Tells programs and other observers that the agent is alive, at a time in seconds of CLOCK_BOOTTIME.
    pub fn heartbeat(&self, seconds: u64) {
        self.control.store(control::HEARTBEAT, seconds);
    }

    /// Backends by id, as programs and earlier agents know them; unused ids are left out.
    pub fn backends(&self) -> Result<Vec<(u32, BackendState)>> {
        let mut backends = Vec::new();
        let mut entries = self.backend.entries();
        while let Some((key, value)) = entries.advance().during(|| "read table `backend`")? {
            let state: BackendState = plain(value)?;
            if state != BackendState::default() {
                backends.push((plain(key)?, state));
            }
        }
        Ok(backends)
    }

    /// Packets and bytes by hook and reason, over all CPUs.
    pub fn counters(&self) -> Result<Vec<(Hook, Reason, Counter)>> {
        let mut counters = Vec::new();
        let mut values = vec![0; self.counter.stride()];
        for hook in Hook::ALL {
            for reason in Reason::ALL {
                self.counter
                    .lookup(hook.counter(reason).as_bytes(), &mut values)
                    .during(|| "read the counters")?;
                let mut sum = Counter::default();
                for value in values.chunks_exact(size_of::<Counter>()) {
                    let value: Counter = plain(value)?;
                    sum.packets = sum.packets.wrapping_add(value.packets);
                    sum.bytes = sum.bytes.wrapping_add(value.bytes);
                }
                counters.push((hook, reason, sum));
            }
        }
        Ok(counters)
    }

    /// Has TCP packets of connections that are not known wait while connections are entered, or no more.
    pub fn set_taking_over(&self, on: bool) {
        self.control.store(control::TAKING_OVER, on.into());
    }

    /// Where clients of Services with affinity went last.
    pub fn affinities(&self) -> Result<BTreeMap<AffinityKey, Affinity>> {
        let map = self.pins.open_map("affinity")?;
        let mut affinities = BTreeMap::new();
        let mut entries = map.entries();
        while let Some((key, value)) = entries.advance().during(|| "read table `affinity`")? {
            affinities.insert(plain(key)?, plain(value)?);
        }
        Ok(affinities)
    }

    /// Forgets where a client went; `false` when it was not known.
    pub fn forget_affinity(&self, key: &AffinityKey) -> Result<bool> {
        let map = self.pins.open_map("affinity")?;
        map.delete(key.as_bytes())
            .during(|| "delete an element of table `affinity`")
    }

    /// Most elements of a table that programs read; `None` before the first generation.
    #[must_use]
    pub fn capacity(&self, table: Table) -> Option<u32> {
        self.readable(table).map(|map| map.shape().entries)
    }

    /// The elements of a table that programs read, sorted by key; array elements that are all zero are left out.
    pub fn dump(&self, table: Table) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut elements = BTreeMap::new();
        let Some(map) = self.readable(table) else {
            return Ok(elements);
        };
        let array = map.shape().kind == map_type::ARRAY;
        let mut entries = map.entries();
        let action = || format!("read table `{}`", table.name());
        while let Some((key, value)) = entries.advance().during(action)? {
            if !array || value.iter().any(|byte| *byte != 0) {
                elements.insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(elements)
    }

    /// The map of a table that programs read.
    fn readable(&self, table: Table) -> Option<&Map> {
        match table {
            Table::Backend => Some(&self.backend),
            _ => self.selected.get(&table),
        }
    }

    /// Takes the log of packets, if the programs write one and nobody has taken it.
    pub fn take_packet_log(&mut self) -> Option<PacketLog> {
        self.live.log.take()
    }

    /// The ring buffer of events ([`weir_common::abi::Event`]); one reader at a time.
    pub fn events(&self) -> Result<RingBuf<MapData>> {
        MapData::from_pin(self.pins.map("events"))
            .and_then(|data| RingBuf::try_from(aya::maps::Map::RingBuf(data)))
            .map_err(|error| {
                Error::kernel("open the ring buffer `events`", io::Error::other(error))
            })
    }

    /// Judges a packet as the hook would, and leaves no trace: no flow, no count, no event.
    pub fn dry_run(&self, hook: Hook, run: &TestRun<'_>) -> Result<RunOutput> {
        run_over(&self.dry, hook, run)
    }

    /// What judges packets as [`Self::dry_run`] does, for other threads, while plans are carried out.
    pub fn judge(&self) -> Result<Judge> {
        let programs = self.dry.duplicate();
        programs
            .map(Judge)
            .during(|| "duplicate the programs that judge without a trace")
    }

    /// Runs the live program over a packet, with all that it does.
    pub fn test_run(&self, hook: Hook, run: &TestRun<'_>) -> Result<RunOutput> {
        run_over(&self.live, hook, run)
    }

    /// Runs the program for drivers over a packet; `None` where drivers get none. The action is 1 for dropped, 2 for left to the
    /// other programs, 3 for sent out again (`enum xdp_action`).
    pub fn test_run_xdp(&self, run: &TestRun<'_>) -> Result<Option<RunOutput>> {
        let Some(xdp) = &self.xdp else {
            return Ok(None);
        };
        let output = bpf::xdp_test_run(xdp.program().as_fd(), *run)
            .during(|| format!("run program `{}` over a packet", xdp::PROGRAM))?;
        Ok(Some(output.into()))
    }

    /// Loads the program that does nothing: what it takes to run is the floor under every measurement by test run.
    pub fn floor(&self) -> Result<Floor> {
        let capacities = Capacities {
            flow: self.flow_capacity(),
            backend: self.backend.shape().entries,
        };
        object::load_empty(&self.pins, capacities).map(Floor)
    }
}

/// Judges packets without a trace, over the maps of the data path that it is of, as they are at the moment.
#[derive(Debug)]
pub struct Judge(Programs);

impl Judge {
    /// See [`KernelDatapath::dry_run`].
    pub fn dry_run(&self, hook: Hook, run: &TestRun<'_>) -> Result<RunOutput> {
        run_over(&self.0, hook, run)
    }
}

/// A program that does nothing.
#[derive(Debug)]
pub struct Floor(OwnedFd);

impl Floor {
    /// Runs it over a packet.
    pub fn test_run(&self, run: &TestRun<'_>) -> Result<RunOutput> {
        run_program(self.0.as_fd(), "empty", run)
    }
}

/// Removes everything that agents of any layout version left: links, filters, pins, directories.
///
/// # Errors
/// `SecondAgent` while an agent runs.
pub fn cleanup(bpffs: &Path) -> Result<()> {
    let pins = Pins::take_existing(bpffs)?;
    for role in [Role::Pod, Role::Net] {
        for ifindex in attach::attached_clsact(role)?.0 {
            attach::detach_clsact(ifindex)?;
        }
    }
    let Some(pins) = pins else {
        return Ok(());
    };
    sockets::detach(&pins)?;
    xdp::detach(&pins)?;
    pins.remove_all()
}

fn run_over(programs: &Programs, hook: Hook, run: &TestRun<'_>) -> Result<RunOutput> {
    run_program(programs.get(hook), object::program_name(hook), run)
}

fn run_program(program: BorrowedFd<'_>, name: &str, run: &TestRun<'_>) -> Result<RunOutput> {
    let output =
        bpf::test_run(program, *run).during(|| format!("run program `{name}` over a packet"))?;
    Ok(output.into())
}

impl From<TestRunOutput> for RunOutput {
    fn from(output: TestRunOutput) -> Self {
        Self {
            action: output.result,
            packet: output.packet,
            nanoseconds: output.nanoseconds,
            reason: u8::try_from(output.mark).ok().and_then(Reason::from_u8),
        }
    }
}

fn barrier() -> io::Result<(Map, Map)> {
    let shape = |kind| Shape {
        kind,
        key: 4,
        value: 4,
        entries: 1,
        flags: 0,
    };
    let inner = Map::create("barrier", shape(map_type::ARRAY), None)?;
    let outer = Map::create("barriers", shape(map_type::ARRAY_OF_MAPS), Some(&inner))?;
    Ok((outer, inner))
}

/// A value of the ABI from the bytes of a map whose shape was checked.
pub(super) fn plain<T: FromBytes>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes).map_err(|_| {
        Error::BadObject(format!(
            "an element of {} bytes has no meaning",
            bytes.len()
        ))
    })
}
