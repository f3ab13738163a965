//! Which tier has the last word, and which rule of it.

use super::*;
use crate::model::{ClusterPolicy, ClusterRule};

/// What a subject says to a peer, given the actions of rules for everything, of the Admin tier and of the Baseline, and the rules of
/// the NetworkPolicy that isolates it, if one does.
fn said(admin: &[Action], isolating: Option<Vec<Rule>>, baseline: &[Action]) -> Literal {
    let isolating = isolating.map(|rules| ingress("p", rules));
    let mut snapshot = snapshot(three(), isolating.into_iter().collect());
    for (name, tier, actions) in [
        ("admin", Tier::Admin, admin),
        ("baseline", Tier::Baseline, baseline),
    ] {
        let rules = actions.iter().map(|action| ClusterRule {
            name: String::new(),
            action: *action,
            matches: rule(Vec::new(), Vec::new()),
        });
        let policy = ClusterPolicy {
            name: ObjectName::cluster(name),
            uid: String::new(),
            labels: labels(&[]),
            tier,
            priority: 1,
            namespaces: Selector::default(),
            pods: Selector::default(),
            ingress: rules.collect(),
            egress: Vec::new(),
        };
        let policies = &mut snapshot.cluster_policies;
        policies.insert(name.to_owned(), Arc::new(policy));
    }
    let tables = policies(&snapshot);
    let (subject, peer) = (at(&tables, SUBJECT), ip("10.0.0.2"));
    let named = |rule: u32| {
        let origin = &tables.rules[&rule];
        (origin.policy.clone(), origin.index)
    };
    match judge(&tables, subject, Direction::Ingress, peer, 6, 80) {
        Verdict::Open => Literal::Open,
        Verdict::Denied(rule) => Literal::Denied(rule.map(named)),
        Verdict::Allowed(rule) => {
            let (policy, index) = named(rule);
            Literal::Allowed(policy, index)
        }
    }
}

/// policy.networking.k8s.io/v1alpha2: the first rule of a tier that matches counts, and Pass leaves it to the next tier.
#[test]
fn the_first_rule_of_a_tier_counts_and_a_pass_is_the_end_of_it() {
    use Action::{Accept, Deny, Pass};
    let everybody = || Some(vec![rule(Vec::new(), Vec::new())]);
    let nobody = || Some(Vec::new());
    let of = |name: &str| ObjectName::cluster(name);
    let policy = || Literal::Allowed(ObjectName::new("a", "p"), 0);
    for (admin, isolating, baseline, expected) in [
        (
            &[Accept, Deny][..],
            nobody(),
            &[][..],
            Literal::Allowed(of("admin"), 0),
        ),
        (
            &[Deny, Accept],
            everybody(),
            &[],
            Literal::Denied(Some((of("admin"), 0))),
        ),
        (&[Pass, Deny], everybody(), &[], policy()),
        (&[Pass, Accept], nobody(), &[], Literal::Denied(None)),
        (&[Pass, Deny], None, &[], Literal::Open),
        (
            &[Pass, Accept],
            None,
            &[Deny],
            Literal::Denied(Some((of("baseline"), 0))),
        ),
        (
            &[Pass, Deny],
            None,
            &[Accept, Deny],
            Literal::Allowed(of("baseline"), 0),
        ),
        (&[], None, &[Pass, Deny], Literal::Open),
        (&[Pass], None, &[Pass, Deny], Literal::Open),
        (&[], everybody(), &[Deny], policy()),
        (&[], nobody(), &[Accept], Literal::Denied(None)),
    ] {
        let actual = said(admin, isolating.clone(), baseline);
        assert_eq!(actual, expected, "{admin:?} {isolating:?} {baseline:?}");
    }
}
