//! Rules in words, as `nft` has them; `...` is for what is not understood.

use std::fmt;

use super::{Addresses, Matches, Rule, Verdict};

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.matches)?;
        match &self.verdict {
            Some(Verdict::Accept) => f.write_str("accept")?,
            Some(Verdict::Drop) => f.write_str("drop")?,
            Some(Verdict::Return) => f.write_str("return")?,
            Some(Verdict::Jump(chain)) => write!(f, "jump {chain}")?,
            Some(Verdict::Goto(chain)) => write!(f, "goto {chain}")?,
            None => f.write_str("continue")?,
        }
        match &self.comment {
            Some(comment) => write!(f, " comment {comment:?}"),
            None => Ok(()),
        }
    }
}

/// Each followed by a space.
impl fmt::Display for Matches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (asked, device, address) in [
            (&self.from, "iifname", "saddr"),
            (&self.to, "oifname", "daddr"),
        ] {
            for asked in asked {
                match asked {
                    Addresses::Device { name, prefix } => {
                        let more = if *prefix { "*" } else { "" };
                        write!(f, "{device} \"{name}{more}\" ")?;
                    }
                    Addresses::Network(network) => {
                        let family = if network.is_ipv4() { "ip" } else { "ip6" };
                        write!(f, "{family} {address} {network} ")?;
                    }
                }
            }
        }
        if let Some(states) = self.states {
            const NAMES: [&str; 4] = ["invalid", "established", "related", "new"];
            let set = |bit: &usize| states & 1 << bit != 0;
            let names: Vec<_> = (0..NAMES.len()).filter(set).map(|bit| NAMES[bit]).collect();
            write!(f, "ct state {} ", names.join(","))?;
        }
        if let Some(v4) = self.v4 {
            write!(f, "meta nfproto {} ", if v4 { "ipv4" } else { "ipv6" })?;
        }
        f.write_str(if self.other { "... " } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TableFamily, TableId};
    use super::*;

    #[test]
    fn rules_are_told_as_nft_does() {
        let network = "10.244.1.0/24".parse().expect("network");
        let device = |name: &str, prefix| Addresses::Device {
            name: name.to_owned(),
            prefix,
        };
        let mut rule = Rule {
            table: TableId::new(TableFamily::V4, "nat"),
            chain: "POSTROUTING".to_owned(),
            handle: 1,
            matches: Matches {
                from: vec![device("veth", true), Addresses::Network(network)],
                to: vec![device("eth0", false)],
                states: Some(9),
                v4: Some(true),
                other: true,
            },
            verdict: Some(Verdict::Jump("KUBE-MARK-MASQ".to_owned())),
            comment: Some("of portmap".to_owned()),
        };
        assert_eq!(
            rule.to_string(),
            "iifname \"veth*\" ip saddr 10.244.1.0/24 oifname \"eth0\" ct state invalid,new meta nfproto ipv4 ... \
             jump KUBE-MARK-MASQ comment \"of portmap\""
        );
        rule.matches = Matches::default();
        (rule.verdict, rule.comment) = (None, None);
        assert_eq!(rule.to_string(), "continue");
    }
}
