//! Plans against maps in memory, watched step by step.

mod contents;
mod held_back;
mod narrowing;
mod planning;
mod policies;
mod room;
mod services;
mod watch;
