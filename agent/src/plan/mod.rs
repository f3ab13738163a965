//! Desired against actual: an ordered list of map writes, printable, with barriers.

mod step;

pub use step::{Plan, Sizes, Step, Table};
