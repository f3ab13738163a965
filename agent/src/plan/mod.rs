//! Desired against actual: an ordered list of map writes, printable, with barriers.

mod backends;
mod contents;
mod display;
mod excess;
mod held_back;
mod memory;
mod narrows;
mod planner;
mod policies;
mod services;
mod sizes;
mod space;
mod step;

pub use contents::Difference;
pub use excess::{Refused, refuse_excess};
pub use memory::{Canonical, CanonicalFrontend, CanonicalRow, MemoryError, MemoryMaps};
pub use planner::Planner;
pub use sizes::{BACKENDS, PlanError, Share, entries};
pub use step::{Bytes, Plan, Sizes, Step, Table};

#[cfg(test)]
mod tests;
