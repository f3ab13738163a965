//! Every client tries every target at once, by plain sockets.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use weir_tests::probe::{Answer, Outcome, Probe, Protocol, Query};
use weir_tests::topology::Pod;

use crate::shop::{NAME, Shop, service};

/// How long a client waits; long enough for a SYN that is lost for another reason to be sent again.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What a client tries.
enum Attempt {
    /// A message by TCP, and who may answer it: pods whose names begin with this.
    Connect(Vec<SocketAddr>, String),
    /// A lookup of a name, and the answer.
    Lookup(Vec<SocketAddr>, Protocol),
}

/// What comes of each pair, as one word.
pub(crate) fn observe(shop: &Shop, clients: &[&str], targets: &[&str]) -> Result<Vec<Vec<String>>> {
    let attempts = targets
        .iter()
        .map(|target| attempt(shop, target))
        .collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let rows: Vec<Vec<_>> = clients
            .iter()
            .map(|client| {
                let client = shop.pod(client);
                attempts
                    .iter()
                    .map(|attempt| scope.spawn(move || attempt.run(client)))
                    .collect()
            })
            .collect();
        let word = |cell: thread::ScopedJoinHandle<'_, Result<String>>| {
            cell.join().ok().context("a client panicked")?
        };
        rows.into_iter()
            .map(|row| row.into_iter().map(word).collect())
            .collect()
    })
}

fn attempt(shop: &Shop, target: &str) -> Result<Attempt> {
    Ok(match target {
        "frontend" | "backend" => Attempt::Connect(service(target, 80)?, target.to_owned()),
        "database" => Attempt::Connect(service(target, 5432)?, target.to_owned()),
        "dns/udp" => Attempt::Lookup(service("kube-dns", 53)?, Protocol::Udp),
        "dns/tcp" => Attempt::Lookup(service("kube-dns", 53)?, Protocol::Tcp),
        "stranger" => {
            let addresses = shop.pod(target).addresses().both();
            Attempt::Connect(
                addresses.map(|ip| SocketAddr::new(ip, 8080)).to_vec(),
                target.to_owned(),
            )
        }
        other => bail!("nobody knows how to try {other}"),
    })
}

impl Attempt {
    /// One word for both families, or one for each.
    fn run(&self, client: &Pod) -> Result<String> {
        let (Self::Connect(addresses, _) | Self::Lookup(addresses, _)) = self;
        let words = addresses
            .iter()
            .map(|&to| self.once(client, to))
            .collect::<Result<Vec<_>>>()?;
        Ok(if words.windows(2).all(|pair| pair[0] == pair[1]) {
            words
                .into_iter()
                .next()
                .context("a target without an address")?
        } else {
            words.join("/")
        })
    }

    fn once(&self, client: &Pod, to: SocketAddr) -> Result<String> {
        let probe = Probe::tcp(to).timeout(PATIENCE);
        Ok(match self {
            Self::Connect(_, who) => match probe.run(client) {
                Outcome::Connected { identity, .. } if identity.starts_with(who) => {
                    "yes".to_owned()
                }
                Outcome::Connected { identity, .. } => format!("by {identity}"),
                outcome => word(&outcome),
            },
            Self::Lookup(_, protocol) => {
                let query = Query {
                    probe: probe.protocol(*protocol),
                    name: NAME.to_owned(),
                    ipv6: to.is_ipv6(),
                };
                let known = service("backend", 80)?
                    .into_iter()
                    .find(|known| known.is_ipv6() == to.is_ipv6());
                match query.run(client) {
                    Answer::Addresses(found)
                        if found.iter().eq(known.map(|known| known.ip()).iter()) =>
                    {
                        "yes".to_owned()
                    }
                    Answer::None(outcome) => word(&outcome),
                    other => format!("{other:?}"),
                }
            }
        })
    }
}

/// The word for an exchange that failed.
pub(crate) fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Timeout => "no".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}
