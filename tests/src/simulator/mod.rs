//! The packet logic on a host: the same decisions over byte vectors and ordinary maps.

mod context;
mod packet;
mod tables;

pub use tables::{Simulator, Step};
