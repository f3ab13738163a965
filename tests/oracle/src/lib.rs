//! A slow, literal reading of the NetworkPolicy API.
