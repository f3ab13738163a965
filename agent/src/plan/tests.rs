//! Plans against maps in memory, watched step by step.

mod narrowing;
mod planning;
mod room;
mod watch;
