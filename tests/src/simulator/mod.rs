//! The packet logic on a host: the same decisions over byte vectors and ordinary maps.

mod context;
mod packet;
mod socket;
mod tables;

pub use socket::{SimulatedSocket, mapped};
pub use tables::{NextHop, Simulator, Step};
