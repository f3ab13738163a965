//! From kube-proxy to Weir and back: rules, and connections that live through it.
//!
//! Needs root; with the real kube-proxy also the programs of test clusters. Says SKIP otherwise.

// xtask: minutes=20

#[path = "takeover/fixture.rs"]
mod fixture;
#[path = "takeover/live.rs"]
mod live;
#[path = "takeover/rules.rs"]
mod rules;
