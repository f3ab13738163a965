//! Metrics for Prometheus: what the agent counts itself, and what it reads from the kernel when asked.

mod names;
mod proxy;
mod sample;
mod talkers;
mod tally;
#[cfg(test)]
mod tests;
mod text;

pub use names::{ALL, Name};
pub use proxy::{Asked, Proxy};
pub use sample::{Fill, Process, Sample};
pub use tally::{FlowKind, Logged, Stage, Tally};
pub use text::{CONTENT_TYPE, encode};
