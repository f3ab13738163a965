//! The object file: embedded, loaded with the map pins of the agent's directory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::programs::{CgroupSockAddr, Program, ProgramError, ProgramFd, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use weir_common::abi::Hook;

use super::bpf::{self, TestRun};
use super::error::{During, Error, Result};
use super::packet_log::PacketLog;
use super::pins::Pins;
use super::{shapes, xdp};
use crate::plan::Table;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir.o"));

/// Program that tells the time, see [`clock`].
const CLOCK: &str = "clock";
/// Program that does nothing.
const EMPTY: &str = "empty";

/// Name of a hook's program, also in pins and filters.
pub(crate) const fn program_name(hook: Hook) -> &'static str {
    match hook {
        Hook::FromPod => "from_pod",
        Hook::ToPod => "to_pod",
        Hook::FromNet => "from_net",
        Hook::ToNet => "to_net",
    }
}

/// Load-time constants of the programs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Constants {
    /// Judge, but write nothing.
    pub(crate) dry_run: bool,
    /// Do without clock and chance.
    pub(crate) replay: bool,
    /// Ticks of the kernel's clock per second.
    pub(crate) ticks_per_second: u32,
    /// Cookie of the node's network namespace; 0 if it is not known.
    pub(crate) node_netns: u64,
    /// Serve pods' sockets, too.
    pub(crate) serves_pods: bool,
    /// Give system calls an error of our choice.
    pub(crate) chooses_error: bool,
}

/// Capacities of the maps that exist once; only those that are not pinned yet are made with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacities {
    /// Map `flow`.
    pub(crate) flow: u32,
    /// Map `backend`.
    pub(crate) backend: u32,
}

/// The loaded programs.
#[derive(Debug)]
pub(crate) struct Programs {
    /// What they write about each packet, in objects built for that.
    pub(crate) log: Option<PacketLog>,
    by_hook: [OwnedFd; Hook::COUNT as usize],
}

impl Programs {
    /// Loads the programs of all hooks over the maps of the directory, which are made where they are not there.
    pub(crate) fn load(pins: &Pins, capacities: Capacities, constants: Constants) -> Result<Self> {
        let mut object = open(pins, capacities, constants)?;
        // Before the programs are loaded: they refer to the map that it takes over.
        let log = PacketLog::of(&mut object)?;
        let [a, b, c, d] = Hook::ALL.map(|hook| load_program(&mut object, program_name(hook)));
        let by_hook = [a?, b?, c?, d?];
        Ok(Self { log, by_hook })
    }

    /// The same programs, under descriptors of their own.
    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        let [a, b, c, d] = self.by_hook.each_ref().map(OwnedFd::try_clone);
        Ok(Self {
            log: None,
            by_hook: [a?, b?, c?, d?],
        })
    }

    /// The program of a hook.
    pub(crate) fn get(&self, hook: Hook) -> BorrowedFd<'_> {
        self.by_hook[hook as usize].as_fd()
    }
}

/// Loads the programs for sockets of these names.
pub(crate) fn load_for_sockets<const N: usize>(
    pins: &Pins,
    capacities: Capacities,
    constants: Constants,
    names: [&'static str; N],
) -> Result<[OwnedFd; N]> {
    let mut object = open(pins, capacities, constants)?;
    let mut programs = Vec::with_capacity(N);
    for name in names {
        let program: &mut CgroupSockAddr = named(&mut object, name)?;
        program.load().map_err(|error| not_loaded(name, error))?;
        programs.push(kept(name, program.fd())?);
    }
    programs
        .try_into()
        .map_err(|_| Error::BadObject("programs for sockets are missing".to_owned()))
}

/// Loads the program for drivers.
pub(crate) fn load_xdp(
    pins: &Pins,
    capacities: Capacities,
    constants: Constants,
) -> Result<OwnedFd> {
    let mut object = open(pins, capacities, constants)?;
    let program: &mut Xdp = named(&mut object, xdp::PROGRAM)?;
    program
        .load()
        .map_err(|error| not_loaded(xdp::PROGRAM, error))?;
    kept(xdp::PROGRAM, program.fd())
}

/// Loads the program that does nothing.
pub(crate) fn load_empty(pins: &Pins, capacities: Capacities) -> Result<OwnedFd> {
    load_program(&mut open(pins, capacities, Constants::default())?, EMPTY)
}

/// Whether the binary holds kernel programs.
pub fn is_embedded() -> bool {
    !OBJECT.is_empty()
}

/// The kernel's clock (jiffies), which no interface tells: its rate, and what it showed at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Ticks per second (CONFIG_HZ).
    pub(crate) rate: u32,
    ticks: u64,
    /// Nanoseconds of CLOCK_MONOTONIC when it showed `ticks`. Both clocks stand still while the machine sleeps.
    nanoseconds: u64,
}

impl Clock {
    /// What it shows now, cut to the width of the ABI.
    pub(crate) fn now(self) -> u32 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let passed = u128::from(now.saturating_sub(self.nanoseconds)) * u128::from(self.rate);
        self.ticks.wrapping_add((passed / 1_000_000_000) as u64) as u32
    }
}

/// Measures the kernel's clock for a tenth of a second.
pub(crate) fn clock(pins: &Pins, capacities: Capacities) -> Result<Clock> {
    /// What CONFIG_HZ can be on the architectures that BPF runs on.
    const USUAL: [u32; 4] = [100, 250, 300, 1000];
    let mut object = open(pins, capacities, Constants::default())?;
    let program = load_program(&mut object, CLOCK)?;
    let (start_ticks, start) = read_clock(program.as_fd())?;
    std::thread::sleep(Duration::from_millis(100));
    let (ticks, nanoseconds) = read_clock(program.as_fd())?;
    let elapsed = nanoseconds.wrapping_sub(start) as f64 / 1e9;
    let measured = ticks.wrapping_sub(start_ticks) as f64 / elapsed;
    let rate = USUAL
        .into_iter()
        .min_by(|a, b| {
            let distance = |usual: u32| (measured / f64::from(usual)).ln().abs();
            distance(*a).total_cmp(&distance(*b))
        })
        .ok_or_else(|| Error::BadObject("no clock rate".to_owned()))?;
    Ok(Clock {
        rate,
        ticks,
        nanoseconds,
    })
}

/// Jiffies and nanoseconds at the same moment.
fn read_clock(program: BorrowedFd<'_>) -> Result<(u64, u64)> {
    let run = TestRun::new(&[0; 64], 0, 0);
    let output = bpf::test_run(program, run).during(|| "run program `clock`")?;
    let word = |at: usize| -> Option<u64> {
        let bytes = output.packet.get(at..at + 8)?;
        bytes.try_into().ok().map(u64::from_ne_bytes)
    };
    word(0)
        .zip(word(8))
        .ok_or_else(|| Error::BadObject("program `clock` answers too little".to_owned()))
}

fn open(pins: &Pins, capacities: Capacities, constants: Constants) -> Result<Ebpf> {
    if !is_embedded() {
        return Err(Error::NoObject);
    }
    let dry_run = u32::from(constants.dry_run);
    let replay = u32::from(constants.replay);
    let serves_pods = u32::from(constants.serves_pods);
    let chooses_error = u32::from(constants.chooses_error);
    let mut loader = EbpfLoader::new();
    loader
        .btf(None)
        .override_global("DRY_RUN", &dry_run, true)
        .override_global("REPLAY", &replay, true)
        .override_global("NODE_NETNS", &constants.node_netns, true)
        .override_global("SERVES_PODS", &serves_pods, true)
        .override_global("CHOOSES_ERROR", &chooses_error, true)
        .map_max_entries("flow", capacities.flow)
        .map_max_entries("backend", capacities.backend);
    if constants.ticks_per_second != 0 {
        loader.override_global("TICKS_PER_SECOND", &constants.ticks_per_second, true);
    }
    let roots = Table::GENERATION.map(Table::name);
    for name in shapes::SHARED.into_iter().chain(roots) {
        loader.map_pin_path(name, pins.map(name));
    }
    loader
        .load(OBJECT)
        .map_err(|error| match kernel_error(&error) {
            Some(source) => Error::kernel(format!("create the kernel's maps ({error})"), source),
            None => Error::BadObject(error.to_string()),
        })
}

/// The system call's error behind one of aya's, as a copy.
fn kernel_error(error: &EbpfError) -> Option<io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(io::Error::from_raw_os_error(code));
        }
        cause = error.source();
    }
    None
}

fn load_program(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd> {
    let program: &mut SchedClassifier = named(object, name)?;
    program.load().map_err(|error| not_loaded(name, error))?;
    kept(name, program.fd())
}

fn named<'o, P>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut P>
where
    &'o mut P: TryFrom<&'o mut Program, Error = ProgramError>,
{
    object
        .program_mut(name)
        .ok_or_else(|| Error::BadObject(format!("no program `{name}`")))?
        .try_into()
        .map_err(|error: ProgramError| Error::BadObject(error.to_string()))
}

fn not_loaded(name: &'static str, error: ProgramError) -> Error {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => match Error::kernel(format!("load program `{name}`"), io_error) {
            Error::Kernel { source, .. } => Error::Verifier {
                program: name,
                log: verifier_log.to_string(),
                source,
            },
            capability => capability,
        },
        other => Error::BadObject(format!("program `{name}`: {other}")),
    }
}

/// A descriptor that outlives the object.
fn kept(name: &str, fd: Result<&ProgramFd, ProgramError>) -> Result<OwnedFd> {
    fd.map_err(|error| Error::BadObject(format!("program `{name}`: {error}")))?
        .as_fd()
        .try_clone_to_owned()
        .during(|| format!("keep program `{name}`"))
}
