//! What the ends of flows cost the agent: processor time of its walks over the flow table while connections come and go, and how many are
//! gone before a walk has found them over.
//!
//! Connections are packets that the loaded program runs over (`BPF_PROG_TEST_RUN`): one that opens, one that resets. The walks are the
//! agent's, in its steps, with a record made of each end.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use weir::datapath::FlowWalk;
use weir::flows::{Counts, Recent, Ticks, Walks};
use weir_tests::kernel::Place;
use weir_tests::packets::{Content, Packet, tcp};

use super::world::{POD, PORT, World, address};
use crate::table::{median, table};

/// What `weir-bench flows` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds of `--flow-ends`, each measured in turn
    #[arg(long, value_delimiter = ',', default_value = "0,2,5,10,30")]
    periods: Vec<u32>,
    /// Rounds, in each of which every period is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// New connections a second
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
}

/// Where ends are not wanted, the agent walks as often.
const USUAL: Duration = Duration::from_secs(30);
/// Records that the agent keeps.
const RECORDS: usize = 4096;
/// Connections of one destination.
const PORTS: u32 = 60_000;

/// What one measurement has found, per second.
#[derive(Default)]
struct Found {
    /// Of a processor.
    share: f64,
    opened: f64,
    ended: f64,
    lost: f64,
    entries: u64,
}

/// Measures all periods in turn, round after round, and prints them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let place = Place::new().context("measuring needs root and an agent with kernel programs")?;
    let world = World::new(&place)?;
    let number = AtomicU64::new(0);
    let mut found: Vec<Vec<Found>> = args.periods.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for (period, found) in args.periods.iter().zip(&mut found) {
            found.push(measure(args, &world, *period, &number)?);
        }
    }
    let rows: Vec<Vec<String>> = args.periods.iter().zip(&found).map(row).collect();
    let head = [
        "--flow-ends",
        "processor",
        "connections/s",
        "ends told/s",
        "entries lost/s",
        "entries in the table",
    ];
    table(&head, &rows);
    Ok(())
}

fn row((period, found): (&u32, &Vec<Found>)) -> Vec<String> {
    let of = |value: fn(&Found) -> f64| median(&found.iter().map(value).collect::<Vec<_>>());
    vec![
        period.to_string(),
        format!("{:.2} %", of(|it| it.share) * 100.0),
        format!("{:.0}", of(|it| it.opened)),
        format!("{:.0}", of(|it| it.ended)),
        format!("{:.0}", of(|it| it.lost)),
        format!("{:.0}", of(|it| it.entries as f64)),
    ]
}

fn measure(args: &Args, world: &World, period: u32, number: &AtomicU64) -> Result<Found> {
    let time = Duration::from_secs(args.seconds);
    let stop = AtomicBool::new(false);
    let first = number.load(Ordering::Relaxed);
    let (walked, opening) = thread::scope(|scope| {
        let opening = scope.spawn(|| open(world, args.rate, number, &stop));
        let walked = walk(world, period, time);
        stop.store(true, Ordering::Relaxed);
        (walked, opening.join())
    });
    opening.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    let (counts, processor, elapsed) = walked?;
    let each_second = |count: u64| count as f64 / elapsed.as_secs_f64();
    Ok(Found {
        share: processor.as_secs_f64() / elapsed.as_secs_f64(),
        opened: each_second(number.load(Ordering::Relaxed) - first),
        ended: each_second(if period == 0 { 0 } else { counts.flows_ended }),
        lost: each_second(counts.entries_lost),
        entries: counts.entries,
    })
}

/// Opens and resets connections, so many a second, until told to stop.
fn open(world: &World, rate: u32, number: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let (start, mut done) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while done < due {
            let next = number.fetch_add(1, Ordering::Relaxed) as u32;
            for flags in [tcp::SYN, tcp::RST] {
                world.send(&packet(next, flags))?;
            }
            done += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A packet of the connection with that number.
fn packet(number: u32, flags: u8) -> Vec<u8> {
    let [.., third, fourth] = (number / PORTS % 50_000).to_be_bytes();
    let destination = IpAddr::from(Ipv4Addr::new(10, 9, third, fourth));
    let content = Content::Tcp {
        source: 1024 + (number % PORTS) as u16,
        destination: PORT,
        flags,
        payload: 64,
    };
    Packet::new(address(POD[0]), destination, content).bytes()
}

/// Walks as the agent does for that time: what was counted, and the time of a processor that it took.
fn walk(world: &World, period: u32, time: Duration) -> Result<(Counts, Duration, Duration)> {
    let datapath = &world.datapath;
    let table = datapath.flow_table()?;
    let rate = datapath.ticks_per_second();
    let tell = period > 0;
    let period = if tell {
        Duration::from_secs(period.into())
    } else {
        USUAL
    };
    let pause = period / (datapath.flow_capacity() / FlowWalk::STEP + 1);
    let mut walks = Walks::new(rate, datapath.now());
    let mut recent = Recent::new(RECORDS);
    let (begin, processor) = (Instant::now(), processor_time());
    while begin.elapsed() < time {
        let next = Instant::now() + period;
        let mut walk = walks.begin(datapath.flows_inserted(), datapath.now());
        let mut entries = table.walk();
        loop {
            let ticks = Ticks {
                now: datapath.now(),
                rate,
                time: Timestamp::now(),
            };
            let more = entries.step(|key, flow| {
                if walk.visit(&key, &flow, ticks.now) && tell {
                    recent.push(world.directory.ended(&key, &flow, ticks));
                }
            })?;
            if !more {
                break;
            }
            thread::sleep(pause);
        }
        for (key, last_seen) in walk.end() {
            datapath.expire_flow(&key, last_seen)?;
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let processor = processor_time().saturating_sub(processor);
    Ok((walks.counts(), processor, begin.elapsed()))
}

/// Time that this thread has had a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
