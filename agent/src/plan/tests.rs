//! Plans against maps in memory, watched step by step.

mod contents;
mod display;
mod growth;
mod held_back;
mod memory;
mod narrowing;
mod planning;
mod policies;
mod room;
mod services;
mod watch;
