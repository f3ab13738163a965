//! `weir doctor`: each fault is made on a node with an agent, found, and gone once what the finding says has been run.
//!
//! Needs root and an agent with its kernel programs inside (`WEIR_BINARY`); says SKIP otherwise.

#[path = "doctor/faults.rs"]
mod faults;
#[path = "doctor/mtu.rs"]
mod mtu;
#[path = "doctor/node.rs"]
mod node;
#[path = "doctor/programs.rs"]
mod programs;
