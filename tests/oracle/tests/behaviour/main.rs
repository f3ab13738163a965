//! What the API text says, statement by statement, on one small cluster.

mod connections;
mod ip_blocks;
mod isolation;
mod lifecycle;
mod nodes;
mod peers;
mod ports;
mod tiers;
mod world;
