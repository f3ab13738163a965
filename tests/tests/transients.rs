//! While a node goes from one state of the cluster to the next, no packet is treated as in neither.
//!
//! Clusters change at random, from a seed. A packet may meet the change at any moment of a plan, and be held up by any number of steps
//! on its way through the maps: `held_up` tries that on the simulator, `loaded` lets the programs run while plans are carried out. Each
//! has a control in which plans are written in the wrong order, and must find that.

// xtask: soak

#[path = "transients/held_up.rs"]
mod held_up;
#[path = "transients/loaded.rs"]
mod loaded;
#[path = "transients/questions.rs"]
mod questions;
#[path = "transients/walk.rs"]
mod walk;

use weir::plan::{Plan, Step, Table};

/// What an agent must not do: the version changes before what it selects is there.
fn reversed(plan: Plan) -> Plan {
    let is_late = |step: &Step| {
        matches!(
            step,
            Step::Write {
                table: Table::Endpoint | Table::Class | Table::Prefix | Table::Verdict,
                ..
            }
        )
    };
    let whole = plan.is_whole();
    let flip = plan
        .steps
        .iter()
        .position(|step| matches!(step, Step::Control { .. }));
    match flip {
        Some(flip) if !whole => {
            let (mut steps, mut late) = (Vec::new(), Vec::new());
            for (index, step) in plan.steps.into_iter().enumerate() {
                if index < flip && is_late(&step) {
                    late.push(step);
                } else {
                    steps.push(step);
                    if index == flip {
                        steps.append(&mut late);
                    }
                }
            }
            Plan { steps }
        }
        _ => plan,
    }
}
