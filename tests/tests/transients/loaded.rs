//! On the loaded programs: processors judge packets while another carries out plans as fast as it can.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir::compile::{Tables, compile};
use weir::datapath::{AttachMode, Judge, KernelDatapath, Options, TestRun};
use weir::plan::{MemoryMaps, Plan, Planner};
use weir_common::abi::Verdict;
use weir_tests::kernel::{Place, veth};
use weir_tests::simulator::{Simulator, Step};
use weir_tests::soaks;

use super::questions::{Question, questions};
use super::reversed;
use super::walk::walk;

/// How long the programs are watched.
const TIME: Duration = Duration::from_secs(10);
/// With `cargo xtask soak`.
const SOAK_TIME: Duration = Duration::from_secs(300);
const EDITS: usize = 40;
const WATCHERS: usize = 2;
const SEED: u64 = 7;

/// See [`weir::datapath::RunOutput::action`].
const TC_ACT_SHOT: i32 = 2;

/// Whether a packet was dropped, and what it has become.
type Answer = (bool, Vec<u8>);

/// What each state of the cluster answers: the simulator says so, which parity shows to be the programs' equal.
fn answers(states: &[Tables], questions: &[Question]) -> Vec<Vec<Answer>> {
    let answer = |tables: &Tables| {
        let mut maps = MemoryMaps::new();
        let plan = Planner::new().plan(tables).expect("plan");
        maps.execute(&plan).expect("execute");
        let simulator = Simulator::new(maps, 250);
        let ask = |question: &Question| {
            simulator.forget_flows();
            let step = Step {
                hook: question.hook,
                ifindex: question.ifindex,
                ingress_ifindex: question.from,
                clock: 0,
                random: 0,
            };
            let (verdict, _, packet) = simulator.run(step, &question.packet);
            (verdict == Verdict::Drop, packet)
        };
        questions.iter().map(ask).collect()
    };
    states.iter().map(answer).collect()
}

/// The states that were on their way: plans begun and carried out so far.
#[derive(Default)]
struct Progress {
    begun: AtomicUsize,
    done: AtomicUsize,
    over: AtomicBool,
    verdicts: AtomicU64,
}

/// Judges until it is over; says what was wrong.
fn judge(
    judge: &Judge,
    questions: &[Question],
    answers: &[Vec<Answer>],
    progress: &Progress,
) -> Option<String> {
    loop {
        for (index, question) in questions.iter().enumerate() {
            if progress.over.load(Ordering::SeqCst) {
                return None;
            }
            let run = TestRun::new(&question.packet, question.ifindex, question.from);
            let first = progress.done.load(Ordering::SeqCst);
            let output = judge.dry_run(question.hook, &run).expect("a dry run");
            let last = progress.begun.load(Ordering::SeqCst);
            progress.verdicts.fetch_add(1, Ordering::Relaxed);
            let answer = (output.action == TC_ACT_SHOT, output.packet);
            let state = |plans: usize| &answers[there_and_back(plans - 1, answers.len())][index];
            if !(first..=last).any(|plans| *state(plans) == answer) {
                let wanted: Vec<_> = (first..=last).map(|plans| state(plans).0).collect();
                progress.over.store(true, Ordering::SeqCst);
                return Some(format!(
                    "packet {index}, plans {first} to {last}: dropped {}, wanted {wanted:?}",
                    answer.0
                ));
            }
        }
    }
}

/// Which of `count` states comes after so many changes: neighbours differ by one edit.
fn there_and_back(changes: usize, count: usize) -> usize {
    let at = changes % (2 * (count - 1));
    at.min(2 * (count - 1) - at)
}

/// Goes through the states again and again; says what the watchers saw, and how many plans and verdicts there were.
fn watch(place: &Place, time: Duration, order: fn(Plan) -> Plan) -> (Option<String>, usize, u64) {
    let devices = ["pod-a", "pod-b"].map(veth);
    let options = Options {
        replay: true,
        ..place.options(AttachMode::Auto)
    };
    let mut datapath = KernelDatapath::open(&options).expect("open");
    let questions = questions(devices);
    let states: Vec<Tables> = walk(SEED, EDITS, devices).iter().map(compile).collect();
    let answers = answers(&states, &questions);
    let mut planner = Planner::new();
    let first = planner.plan(&states[0]).expect("plan");
    datapath.execute(&first).expect("execute");
    let progress = Progress::default();
    progress.begun.store(1, Ordering::SeqCst);
    progress.done.store(1, Ordering::SeqCst);
    let judges: Vec<Judge> = (0..WATCHERS)
        .map(|_| datapath.judge().expect("a judge"))
        .collect();
    let found = thread::scope(|scope| {
        let watchers: Vec<_> = judges
            .iter()
            .map(|it| scope.spawn(|| judge(it, &questions, &answers, &progress)))
            .collect();
        let end = Instant::now() + time;
        let mut plans = 1;
        while Instant::now() < end && !progress.over.load(Ordering::SeqCst) {
            let tables = &states[there_and_back(plans, states.len())];
            plans += 1;
            let plan = order(planner.plan(tables).expect("plan"));
            progress.begun.store(plans, Ordering::SeqCst);
            datapath.execute(&plan).expect("execute");
            progress.done.store(plans, Ordering::SeqCst);
        }
        progress.over.store(true, Ordering::SeqCst);
        let found = watchers
            .into_iter()
            .map(|watcher| watcher.join().expect("a watcher"));
        found.fold(None, Option::or)
    });
    (
        found,
        progress.done.into_inner(),
        progress.verdicts.into_inner(),
    )
}

#[test]
fn no_verdict_is_of_neither_state() {
    let Some(place) = Place::new() else { return };
    let time = if soaks() { SOAK_TIME } else { TIME };
    let (found, plans, verdicts) = watch(&place, time, |plan| plan);
    println!("{plans} plans, {verdicts} verdicts");
    assert_eq!(found, None);
    assert!(
        plans > EDITS && verdicts > 10_000,
        "{plans} plans, {verdicts} verdicts"
    );
}

#[test]
fn the_watchers_notice_a_version_that_changes_too_early() {
    let Some(place) = Place::new() else { return };
    let (found, ..) = watch(&place, TIME, reversed);
    assert!(found.is_some(), "nobody noticed");
}
