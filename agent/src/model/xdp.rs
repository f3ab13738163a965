//! Packets that go past the node's network stack.

use std::fmt;
use std::str::FromStr;

/// Where connections from outside to backends on other nodes are forwarded in the driver (`--xdp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Nowhere: every packet meets the node's firewall and packet captures.
    #[default]
    Off,
    /// At uplinks whose driver runs XDP programs.
    Auto,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for XdpMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            other => Err(format!("`{other}` is none of off, auto")),
        }
    }
}
