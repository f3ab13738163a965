//! On the simulator: packets that are held up on their way through the maps, by any steps between which the agent does not wait for them.

use std::rc::Rc;

use weir::compile::compile;
use weir::plan::{MemoryMaps, Plan, Planner, Step as PlanStep};
use weir_common::abi::{Verdict, control};
use weir_common::reason::Reason;
use weir_tests::random::Random;
use weir_tests::simulator::{Simulator, Step};
use weir_tests::soaks;

use super::questions::{Question, questions};
use super::reversed;
use super::walk::walk;

const DEVICES: [u32; 2] = [11, 12];
const WALKS: u64 = 6;
/// With `cargo xtask soak`.
const SOAK_WALKS: u64 = 200;
const EDITS: usize = 16;
/// Pairs of moments that are tried of each stretch without a wait.
const PAIRS: usize = 16;
/// More lookups than any packet needs.
const LOOKUPS: u32 = 200;

type Outcome = (Verdict, u8, Vec<u8>);

/// The maps after a step, and how many plans had been begun and carried out by then.
struct Moment {
    maps: Rc<MemoryMaps>,
    begun: usize,
    done: usize,
}

fn answer(simulator: &Simulator, question: &Question) -> Outcome {
    simulator.forget_flows();
    simulator.run(step(question), &question.packet)
}

fn step(question: &Question) -> Step {
    Step {
        hook: question.hook,
        ifindex: question.ifindex,
        ingress_ifindex: question.from,
        clock: 1000,
        random: 0,
    }
}

/// Every moment of a walk, in stretches between which programs that began before are waited for; and the answers of each state.
fn moments(
    seed: u64,
    order: fn(Plan) -> Plan,
    questions: &[Question],
) -> (Vec<Vec<Moment>>, Vec<Vec<Outcome>>) {
    let mut maps = MemoryMaps::new();
    let mut planner = Planner::new();
    let mut random = Random::new(seed);
    let mut stretches = vec![Vec::new()];
    let mut answers = Vec::new();
    for (state, snapshot) in walk(seed, EDITS, DEVICES).iter().enumerate() {
        if random.one_in(6) {
            // Another agent, which knows nothing of the policies in the maps.
            let version = maps.control(control::VERSION);
            planner = Planner::new();
            planner.adopt_backends(&maps.backends());
            planner.set_version(version);
        }
        let plan = order(planner.plan(&compile(snapshot)).expect("plan"));
        let steps = plan.steps.len();
        for (index, step) in plan.steps.iter().enumerate() {
            maps.apply(step).expect("a step");
            if *step == PlanStep::Wait {
                stretches.push(Vec::new());
            }
            let done = state + usize::from(index + 1 == steps);
            let begun = state + 1;
            // Before the first state there is nothing to be neither of.
            if state > 0 {
                let maps = Rc::new(maps.clone());
                let stretch = stretches.last_mut().expect("a stretch");
                stretch.push(Moment { maps, begun, done });
            }
        }
        let simulator = Simulator::new(maps.clone(), 250);
        answers.push(questions.iter().map(|it| answer(&simulator, it)).collect());
    }
    (stretches, answers)
}

/// Tries a walk; gives how many packets were sent, or what the first wrong one met.
fn attempt(seed: u64, order: fn(Plan) -> Plan) -> Result<usize, String> {
    let questions = questions(DEVICES);
    let (stretches, answers) = moments(seed, order, &questions);
    let mut random = Random::new(seed);
    let mut sent = 0;
    for stretch in stretches.iter().filter(|stretch| !stretch.is_empty()) {
        for _ in 0..PAIRS {
            let first = random.below(stretch.len());
            let (began, ended) = (
                &stretch[first],
                &stretch[first + random.below(stretch.len() - first)],
            );
            let simulator = Simulator::new((*began.maps).clone(), 250);
            for (index, question) in questions.iter().enumerate() {
                // State n is that after plan n + 1.
                let allowed = &answers[began.done.saturating_sub(1)..ended.begun];
                for lookups in 0..LOOKUPS {
                    simulator.forget_flows();
                    let (outcome, held) = simulator.run_held_up(
                        step(question),
                        &question.packet,
                        lookups,
                        &ended.maps,
                    );
                    sent += 1;
                    if !allowed.iter().any(|answers| answers[index] == outcome) {
                        let reason = |outcome: &Outcome| (outcome.0, Reason::from_u8(outcome.1));
                        let wanted: Vec<_> = allowed
                            .iter()
                            .map(|answers| reason(&answers[index]))
                            .collect();
                        return Err(format!(
                            "seed {seed}, packet {index}, held up after {lookups} lookups: {:?}, none of {wanted:?}",
                            reason(&outcome),
                        ));
                    }
                    if !held {
                        break;
                    }
                }
            }
        }
    }
    Ok(sent)
}

#[test]
fn packets_that_are_held_up_are_treated_as_before_or_after() {
    let walks = if soaks() { SOAK_WALKS } else { WALKS };
    let mut sent = 0;
    for seed in 0..walks {
        match attempt(seed, |plan| plan) {
            Ok(packets) => sent += packets,
            Err(text) => panic!("{text}"),
        }
    }
    println!("{walks} walks, {sent} packets");
    assert!(sent > 1000 * walks as usize, "too few packets to mean much");
}

#[test]
fn a_version_that_changes_too_early_is_noticed() {
    assert!((0..WALKS).any(|seed| attempt(seed, reversed).is_err()));
}
