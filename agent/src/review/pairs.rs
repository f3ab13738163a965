//! Every pair of parties: what opens and what closes between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::parties::{Both, Class, Ground, Party};
use super::ports::{PortRange, joined, pieces};
use super::{Change, Decision, End, Family};
use crate::explain::{Connection, RuleMatch, Side, SideOutcome, Spot, World, side};
use crate::model::{Direction, ObjectName, Pod, Protocol};

/// What opens and what closes.
pub(super) struct Pairs {
    pub(super) opened: Vec<Change>,
    pub(super) closed: Vec<Change>,
}

/// What differs between two parties for one reason.
type Differences = BTreeMap<(bool, Vec<Decision>), Found>;

#[derive(Default)]
struct Found {
    ports: Vec<PortRange>,
    /// The rule that comes nearest to allowing what closes, best for a port that the destination declares.
    nearest: Option<(bool, RuleMatch)>,
}

/// What is the same for several pairs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    opens: bool,
    ports: Vec<PortRange>,
    families: Vec<Family>,
    because: Vec<Decision>,
}

/// Both sides of a connection: whether it passes, and what each end's policies say.
pub(super) struct Judged {
    pub(super) egress: Side,
    pub(super) ingress: Side,
}

impl Judged {
    pub(super) fn passes(&self) -> bool {
        self.sides().iter().all(|side| side.outcome.passes())
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.egress, &self.ingress]
    }

    /// The sides that do not let it pass, and why.
    pub(super) fn denials(&self) -> Vec<Decision> {
        let sides = self.sides().into_iter();
        sides
            .filter(|side| !side.outcome.passes())
            .map(decision)
            .collect()
    }
}

impl<'a> Ground<'a> {
    /// Asks the policies of one world about a connection.
    pub(super) fn judge(
        &self,
        world: usize,
        source: &Spot<'a>,
        destination: &Spot<'a>,
        protocol: Protocol,
        port: u16,
    ) -> Judged {
        let world = &self.worlds[world];
        let connection = Connection::direct(source, destination, protocol, port);
        Judged {
            egress: side(world, &connection, Direction::Egress),
            ingress: side(world, &connection, Direction::Ingress),
        }
    }

    /// All pairs. Costs what can differ: pairs of which neither end's policies, labels and ports changed are not asked.
    pub(super) fn pairs(&self) -> Pairs {
        let mut rows: BTreeMap<Row, BTreeMap<usize, BTreeSet<usize>>> = BTreeMap::new();
        let mut nearest = BTreeMap::new();
        for source in 0..self.parties.len() {
            for destination in 0..self.parties.len() {
                for (row, near) in self.pair(source, destination) {
                    let to = rows.entry(row.clone()).or_default();
                    to.entry(destination).or_default().insert(source);
                    if let Some(near) = near {
                        nearest.entry(row).or_insert(near);
                    }
                }
            }
        }
        let mut pairs = Pairs {
            opened: Vec::new(),
            closed: Vec::new(),
        };
        for (row, pairs_of_row) in rows {
            // Destinations with the same sources.
            let mut alike: BTreeMap<BTreeSet<usize>, BTreeSet<usize>> = BTreeMap::new();
            for (destination, sources) in pairs_of_row {
                alike.entry(sources).or_default().insert(destination);
            }
            let nearest = nearest.get(&row);
            for (from, to) in alike {
                let changes = if row.opens {
                    &mut pairs.opened
                } else {
                    &mut pairs.closed
                };
                changes.push(Change {
                    from: self.ends(&from),
                    to: self.ends(&to),
                    ports: row.ports.clone(),
                    families: row.families.clone(),
                    because: row.because.clone(),
                    nearest: nearest.cloned(),
                });
            }
        }
        pairs.opened.sort();
        pairs.closed.sort();
        pairs
    }

    fn ends(&self, parties: &BTreeSet<usize>) -> Vec<End> {
        let mut ends: Vec<End> = Vec::new();
        for party in parties {
            match &self.parties[*party] {
                Party::Pods(class) => ends.extend(self.ends_of(class)),
                Party::Nodes(addresses) => ends.push(End::Nodes {
                    addresses: addresses.iter().map(|(address, _)| *address).collect(),
                }),
                Party::Outside(end, _) => ends.push(end.clone()),
            }
        }
        ends.sort();
        // Pods of one workload that some policy tells apart, but none of this row does.
        ends.dedup_by(|one, other| match (one, other) {
            (
                End::Pods {
                    namespace,
                    workload,
                    pods,
                },
                End::Pods {
                    namespace: same,
                    workload: alike,
                    pods: sum,
                },
            ) if namespace == same && workload == alike => {
                *sum += *pods;
                true
            }
            _ => false,
        });
        ends
    }

    fn pair(&self, source: usize, destination: usize) -> Vec<(Row, Option<RuleMatch>)> {
        let (from, to) = (&self.parties[source], &self.parties[destination]);
        if !may_differ(self.worlds, from, to) {
            return Vec::new();
        }
        let cuts = [
            from.class()
                .map(|class| &class.rules[&Direction::Egress].cuts),
            to.class()
                .map(|class| &class.rules[&Direction::Ingress].cuts),
        ];
        let mut found: Vec<(Family, Differences)> = Vec::new();
        for family in [Family::IPv4, Family::IPv6] {
            let Some(ends) = self.spots(from, to, family, source == destination) else {
                continue;
            };
            let pods = ends.each_ref().map(|(_, to)| to.pod);
            let mut differences = Differences::new();
            for piece in pieces(cuts, pods) {
                self.compare(&ends, piece, &mut differences);
            }
            found.push((family, differences));
        }
        let mut rows = BTreeMap::new();
        let asked = found.len();
        for (family, differences) in found {
            for ((opens, because), found) in differences {
                let key = (opens, joined(found.ports), because);
                let row: &mut (Vec<Family>, Option<RuleMatch>) = rows.entry(key).or_default();
                row.0.push(family);
                row.1 = row.1.take().or(found.nearest.map(|(_, rule)| rule));
            }
        }
        let rows = rows
            .into_iter()
            .map(|((opens, ports, because), (families, nearest))| {
                // What holds for every family that both ends have needs no word of it.
                let families = if families.len() == asked {
                    Vec::new()
                } else {
                    families
                };
                let row = Row {
                    opens,
                    ports,
                    families,
                    because,
                };
                (row, nearest)
            });
        rows.collect()
    }

    /// Asks about one piece of ports in both worlds.
    fn compare(
        &self,
        ends: &Both<(Spot<'a>, Spot<'a>)>,
        piece: PortRange,
        differences: &mut Differences,
    ) {
        let judge = |world: usize| {
            let (from, to) = &ends[world];
            self.judge(world, from, to, piece.protocol, piece.first)
        };
        let (was, is) = (judge(0), judge(1));
        if was.passes() == is.passes() {
            return;
        }
        let opens = is.passes();
        let because = if opens {
            // What denied it before and lets it pass now.
            let sides = was.sides().into_iter().zip(is.sides());
            let changed = sides.filter(|(was, _)| !was.outcome.passes());
            changed.map(|(_, is)| decision(is)).collect()
        } else {
            is.denials()
        };
        let found = differences.entry((opens, because)).or_default();
        found.ports.push(piece);
        let sides = is.sides().into_iter().filter(|side| !side.outcome.passes());
        if let Some(near) = sides.flat_map(|side| &side.nearest).next() {
            let declared = ends[1].1.pod.is_some_and(|pod| declares(pod, piece));
            if found
                .nearest
                .as_ref()
                .is_none_or(|(already, _)| declared && !already)
            {
                let rule = RuleMatch {
                    policy: near.policy.clone(),
                    index: near.index,
                    peer: near.peer.clone(),
                    port: near.port.clone(),
                };
                found.nearest = Some((declared, rule));
            }
        }
    }

    /// A source and a destination of a family in each world, for all of their parties.
    fn spots(
        &self,
        from: &Party,
        to: &Party,
        family: Family,
        same: bool,
    ) -> Option<Both<(Spot<'a>, Spot<'a>)>> {
        let world = |index: usize| {
            let world = &self.worlds[index];
            match (from, to) {
                // The pod's own node may always reach it; what is asked is what the others may.
                (Party::Nodes(nodes), Party::Pods(class)) => class.pods.iter().find_map(|name| {
                    let destination = pod_spot(world, name, family)?;
                    let source = foreign(world, nodes, family, &destination)?;
                    Some((source, destination))
                }),
                _ => Some((
                    spot(world, from, family, 0)?,
                    spot(world, to, family, usize::from(same))?,
                )),
            }
        };
        Some([world(0)?, world(1)?])
    }
}

/// An address of a party. Pods of one class talk to each other: then the source is the first, the destination the second.
pub(super) fn spot<'a>(
    world: &World<'a>,
    party: &Party,
    family: Family,
    nth: usize,
) -> Option<Spot<'a>> {
    match party {
        Party::Pods(class) => pod_spot(world, class.pods.get(nth)?, family),
        Party::Nodes(nodes) => {
            let mut addresses = nodes.iter().map(|(address, _)| *address);
            addresses
                .find(|it| family.has(*it))
                .map(|it| world.spot(it))
        }
        Party::Outside(_, address) => family.has(*address).then(|| world.spot(*address)),
    }
}

/// An address that a pod owns.
pub(super) fn pod_spot<'a>(
    world: &World<'a>,
    name: &ObjectName,
    family: Family,
) -> Option<Spot<'a>> {
    let pod = world.snapshot.pods.get(name)?;
    let addresses = pod.ips.iter().map(IpAddr::to_canonical);
    let mut spots = addresses
        .filter(|it| family.has(*it))
        .map(|it| world.spot(it));
    spots.find(|spot| spot.pod.is_some_and(|owner| owner.name == *name))
}

/// An address of a node that is not the destination's own.
fn foreign<'a>(
    world: &World<'a>,
    nodes: &[(IpAddr, String)],
    family: Family,
    destination: &Spot<'a>,
) -> Option<Spot<'a>> {
    let own = destination.pod.map(|pod| pod.node.as_str());
    let mut others = nodes
        .iter()
        .filter(|(address, node)| family.has(*address) && own != Some(node));
    others.next().map(|(address, _)| world.spot(*address))
}

/// Whether what passes between two parties can differ at all.
fn may_differ(worlds: &Both<World<'_>>, from: &Party, to: &Party) -> bool {
    let unstable = |class: &Class| !class.stable;
    let (source, destination) = (from.class(), to.class());
    if source.is_none() && destination.is_none() {
        return false;
    }
    let nodes = matches!(from, Party::Nodes(_)) || matches!(to, Party::Nodes(_));
    source.is_some_and(|class| unstable(class) || !class.rules[&Direction::Egress].same)
        || destination
            .is_some_and(|class| unstable(class) || !class.rules[&Direction::Ingress].same)
        || (nodes && worlds[0].snapshot.nodes != worlds[1].snapshot.nodes)
}

fn declares(pod: &Pod, piece: PortRange) -> bool {
    pod.ports
        .iter()
        .any(|port| piece.holds(port.protocol, port.port))
}

/// Who decided on one side.
fn decision(side: &Side) -> Decision {
    let tier = side.tiers.last().map(|tier| tier.rule.clone());
    let (policies, rules) = match side.outcome {
        SideOutcome::Denied => {
            let isolating = side.isolated_by.iter().map(|by| by.policy.clone());
            (isolating.collect(), Vec::new())
        }
        SideOutcome::DeniedByRule => (Vec::new(), tier.into_iter().collect()),
        SideOutcome::Allowed if side.allowed_by.is_empty() => {
            (Vec::new(), tier.into_iter().collect())
        }
        SideOutcome::Allowed => (Vec::new(), side.allowed_by.clone()),
        SideOutcome::NotSelectable
        | SideOutcome::NotIsolated
        | SideOutcome::OwnNode
        | SideOutcome::Itself => (Vec::new(), Vec::new()),
    };
    Decision {
        direction: side.direction,
        outcome: side.outcome,
        policies,
        rules,
    }
}
