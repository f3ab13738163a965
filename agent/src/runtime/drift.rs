//! What the kernel holds against what was written there: a map that somebody else has changed is written anew.

use std::thread;
use std::time::{Duration, Instant};

use super::nets;
use super::shared::Shared;
use crate::admin::{Audit, AuditedTable};
use crate::compile::{self, Tables};
use crate::datapath::{self, KernelDatapath};
use crate::explain;
use crate::plan::{Difference, Planner, Table};

/// One table is compared in this time. It takes as long as reading it: milliseconds, with 10,000 Services some tens.
const PACE: Duration = Duration::from_secs(10);
/// Differences that are named; all are counted.
const NAMED: usize = 20;
/// How long an audit waits for a change that is on its way to the kernel, and how often it looks.
const REST: (Duration, u32) = (Duration::from_millis(50), 40);
/// Questions of an audit, which takes some seconds then.
const QUESTIONS: usize = 200_000;

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Rounds {
    next: usize,
    last: Instant,
    all: bool,
}

impl Rounds {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            last: Instant::now(),
            all: false,
        }
    }

    /// It is every table's turn.
    pub(super) fn hurry(&mut self) {
        self.all = true;
    }

    /// The tables to look at now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Table> {
        if std::mem::take(&mut self.all) {
            return Table::all().collect();
        }
        if now.duration_since(self.last) < PACE {
            return Vec::new();
        }
        self.last = now;
        let table = Table::all().nth(self.next);
        self.next = (self.next + 1) % Table::all().count();
        table.into_iter().collect()
    }
}

/// Where a table is not what was written.
pub(super) fn compare(
    planner: &Planner,
    datapath: &KernelDatapath,
    table: Table,
) -> Result<Vec<Difference>, datapath::Error> {
    Ok(planner.differences(table, &datapath.dump(table)?))
}

/// Tells of differences.
pub(super) fn warn(table: Table, differences: &[Difference]) {
    for difference in differences.iter().take(NAMED) {
        tracing::warn!("somebody changed {difference}");
    }
    tracing::warn!(
        map = table.name(),
        elements = differences.len(),
        "the maps are written anew: find out who else writes to them"
    );
}

/// Compares everything: the kernel with what was written, that with tables made anew from the objects, and those with the objects
/// themselves.
pub(super) fn audit(shared: &Shared) -> Result<Audit, String> {
    let (pause, times) = REST;
    let mut looks = 0..times;
    while shared.published().waiting_since.is_some() && looks.next().is_some() {
        thread::sleep(pause);
    }
    // Plans are carried out, and told of, under the other side of this lock.
    let datapath = shared.datapath();
    let published = shared.published();
    let planner = published.planner.ok_or(
        "the agent does not know yet what the maps hold: see lastError in `weir status`, and ask again",
    )?;
    let mut answer = Audit::default();
    for table in Table::all() {
        let found = datapath.dump(table).map_err(|error| error.to_string())?;
        let differences = planner.differences(table, &found);
        answer.tables.push(AuditedTable {
            name: table.name().to_owned(),
            elements: found.len(),
            differences: differences.len(),
        });
        let named = differences.iter().take(NAMED);
        answer.differences.extend(named.map(ToString::to_string));
    }
    let words = datapath.strayed_words();
    answer
        .differences
        .extend(words.iter().map(ToString::to_string));
    let nets = datapath.nets().map_err(|error| error.to_string())?;
    drop(datapath);
    for (ifindex, wanted) in nets::rows(&published.snapshot.devices.nets) {
        if nets.get(&ifindex) != Some(&wanted) {
            let found = nets.get(&ifindex);
            answer.differences.push(format!(
                "map device: {ifindex} is {found:?}, should be {wanted:?}"
            ));
        }
    }
    if !answer.differences.is_empty() {
        // The loop repairs them, and counts.
        shared.suspicion.notify_one();
    }
    let Some(held) = planner.held() else {
        return Ok(answer);
    };
    let fresh = compile::compile(&published.snapshot);
    answer.differences.extend(stale(held, &fresh));
    let judged = explain::judge_atoms(&published.snapshot, &held.policies, QUESTIONS);
    answer.questions = judged.asked;
    answer.atoms = judged.atoms;
    let disagreements = judged.disagreements.into_iter().take(NAMED);
    answer.differences.extend(disagreements);
    Ok(answer)
}

/// Tables that are not those of the objects.
fn stale(held: &Tables, fresh: &Tables) -> Vec<String> {
    let mut stale = Vec::new();
    let mut check = |what: &str, same: bool| {
        if !same {
            stale.push(format!("the {what} written are not those of the objects: an update is on its way, or was refused (`weir status`)"));
        }
    };
    check("Services", held.services == fresh.services);
    check("policies", held.policies == fresh.policies);
    stale
}
