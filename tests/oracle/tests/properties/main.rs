//! What must hold for every cluster, tried on generated ones.

mod generator;
mod metamorphic;
mod minimise;
mod tiers;
