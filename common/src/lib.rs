#![no_std]
//! What Weir's kernel programs and its agent share.
//!
//! [`abi`] holds the layout of every map, [`logic`] the packet decisions (compiled into BPF and into a host simulator),
//! [`reason`] the one list of reasons for a verdict.

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod logic;
pub mod reason;
