//! Metrics for Prometheus: what the agent counts itself, and what it reads from the kernel when asked.

mod names;
mod sample;
mod tally;
#[cfg(test)]
mod tests;
mod text;

pub use names::{ALL, Name};
pub use sample::{Fill, Sample};
pub use tally::{FlowKind, Stage, Tally};
pub use text::{CONTENT_TYPE, encode};
