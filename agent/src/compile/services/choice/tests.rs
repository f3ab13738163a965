//! The cases of kube-proxy's own test of this choice, and a few more.

use super::*;

/// What a test says of an endpoint, in words: `local`, `unready`, `ending` (serving and terminating), `waiting` (serving, and neither
/// ready nor terminating), `dead` (neither ready nor serving), `z=a,b` for zone hints, `n=1,2` for node hints.
type Said = (&'static str, &'static str);

fn endpoint((address, words): Said) -> Endpoint {
    let names = |key: &str| -> Vec<String> {
        let lists = words.split(' ').filter_map(|word| word.strip_prefix(key));
        lists
            .flat_map(|list| list.split(',').map(str::to_owned))
            .collect()
    };
    let says = |word: &str| words.split(' ').any(|said| said == word);
    let hints = Hints {
        zones: names("z="),
        nodes: names("n="),
    };
    Endpoint {
        ready: !["unready", "ending", "waiting", "dead"]
            .into_iter()
            .any(says),
        serving: !(says("unready") || says("dead")),
        terminating: says("ending"),
        node: says("local").then(|| NODE.to_owned()),
        hints: (hints != Hints::default()).then(|| Box::new(hints)),
        ..Endpoint::new(format!("10.1.2.{address}").parse().unwrap())
    }
}

const NODE: &str = "1";

struct Case {
    name: &'static str,
    zone: &'static str,
    endpoints: &'static [Said],
    cluster: &'static [u8],
    local: &'static [u8],
}

const IN_THREE_ZONES: &[Said] = &[("3", "z=a"), ("4", "z=b"), ("5", "z=c"), ("6", "z=a")];
const ON_FOUR_NODES: &[Said] = &[
    ("3", "z=a n=1"),
    ("4", "z=b n=2"),
    ("5", "z=c n=3"),
    ("6", "z=a n=4"),
];

const CASES: &[Case] = &[
    Case {
        name: "all have hints, and some are for our zone",
        zone: "a",
        endpoints: IN_THREE_ZONES,
        cluster: &[3, 6],
        local: &[],
    },
    Case {
        name: "hints do not narrow the local set",
        zone: "a",
        endpoints: &[
            ("3", "z=a local"),
            ("4", "z=b local"),
            ("5", "z=c"),
            ("6", "z=a"),
        ],
        cluster: &[3, 6],
        local: &[3, 4],
    },
    Case {
        name: "a node without a zone",
        zone: "",
        endpoints: &[("3", "z=a")],
        cluster: &[3],
        local: &[],
    },
    Case {
        name: "no endpoint is meant for our zone",
        zone: "b",
        endpoints: &[("3", "z=a")],
        cluster: &[3],
        local: &[],
    },
    Case {
        name: "one of our zone is not ready",
        zone: "a",
        endpoints: &[
            ("3", "z=a"),
            ("4", "z=b"),
            ("5", "z=c"),
            ("6", "z=a unready"),
        ],
        cluster: &[3],
        local: &[],
    },
    Case {
        name: "none of our zone is ready",
        zone: "a",
        endpoints: &[
            ("3", "z=a unready"),
            ("4", "z=b"),
            ("5", "z=c"),
            ("6", "z=a unready"),
        ],
        cluster: &[4, 5],
        local: &[],
    },
    Case {
        name: "one has no hint",
        zone: "a",
        endpoints: &[("3", "z=a"), ("4", "z=b"), ("5", ""), ("6", "z=a")],
        cluster: &[3, 4, 5, 6],
        local: &[],
    },
    Case {
        name: "one that has no hint and is not ready does not matter",
        zone: "a",
        endpoints: &[("3", "z=a"), ("4", "z=b"), ("5", "unready")],
        cluster: &[3],
        local: &[],
    },
    Case {
        name: "several zones for an endpoint",
        zone: "c",
        endpoints: &[
            ("3", "z=a,b,c"),
            ("4", "z=b,c"),
            ("5", "z=b,d"),
            ("6", "z=c"),
        ],
        cluster: &[3, 4, 6],
        local: &[],
    },
    Case {
        name: "an endpoint for our node",
        zone: "a",
        endpoints: ON_FOUR_NODES,
        cluster: &[3],
        local: &[],
    },
    Case {
        name: "zone hints alone, as an older control plane writes them",
        zone: "a",
        endpoints: IN_THREE_ZONES,
        cluster: &[3, 6],
        local: &[],
    },
    Case {
        name: "one has no node hint and no zone hint",
        zone: "a",
        endpoints: &[
            ("3", "z=a n=1"),
            ("4", ""),
            ("5", "z=c n=3"),
            ("6", "z=a n=4"),
        ],
        cluster: &[3, 4, 5, 6],
        local: &[],
    },
    Case {
        name: "one has no node hint, all have zone hints",
        zone: "a",
        endpoints: &[("3", "z=a n=1"), ("4", "z=b"), ("6", "z=a n=4")],
        cluster: &[3, 6],
        local: &[],
    },
    Case {
        name: "none for our node, some for our zone",
        zone: "a",
        endpoints: &[
            ("3", "z=a n=7"),
            ("4", "z=b n=2"),
            ("5", "z=c n=3"),
            ("6", "z=a n=4"),
        ],
        cluster: &[3, 6],
        local: &[],
    },
    Case {
        name: "a node's hint, and a node without a zone",
        zone: "",
        endpoints: ON_FOUR_NODES,
        cluster: &[3],
        local: &[],
    },
    Case {
        name: "near ones and local ones differ",
        zone: "a",
        endpoints: &[
            ("0", "z=a local"),
            ("1", "z=b local"),
            ("2", "z=a"),
            ("3", "z=b"),
        ],
        cluster: &[0, 2],
        local: &[0, 1],
    },
    Case {
        name: "no endpoints",
        zone: "",
        endpoints: &[],
        cluster: &[],
        local: &[],
    },
    Case {
        name: "all remote",
        zone: "",
        endpoints: &[("0", ""), ("1", "")],
        cluster: &[0, 1],
        local: &[],
    },
    Case {
        name: "all local",
        zone: "",
        endpoints: &[("0", "local"), ("1", "local")],
        cluster: &[0, 1],
        local: &[0, 1],
    },
    Case {
        name: "some local",
        zone: "",
        endpoints: &[("0", "local"), ("1", "")],
        cluster: &[0, 1],
        local: &[0],
    },
    Case {
        name: "none ready",
        zone: "",
        endpoints: &[("0", "unready"), ("1", "unready")],
        cluster: &[],
        local: &[],
    },
    Case {
        name: "some ready",
        zone: "",
        endpoints: &[("0", "unready"), ("1", "")],
        cluster: &[1],
        local: &[],
    },
    Case {
        name: "all are ending",
        zone: "",
        endpoints: &[("0", "ending local"), ("1", "ending")],
        cluster: &[0, 1],
        local: &[0],
    },
    Case {
        name: "all are remote and ending",
        zone: "",
        endpoints: &[("0", "ending"), ("1", "ending")],
        cluster: &[0, 1],
        local: &[],
    },
    Case {
        name: "each set falls back by itself",
        zone: "",
        endpoints: &[
            ("0", ""),
            ("1", "dead local"),
            ("2", "ending local"),
            ("3", "ending"),
        ],
        cluster: &[0],
        local: &[2],
    },
    Case {
        name: "of what is ending hints count nothing",
        zone: "a",
        endpoints: &[("0", "ending z=a"), ("1", "ending z=b")],
        cluster: &[0, 1],
        local: &[],
    },
    Case {
        name: "what serves is a last resort only while it is terminating",
        zone: "",
        endpoints: &[("0", "waiting local"), ("1", "waiting")],
        cluster: &[],
        local: &[],
    },
    Case {
        name: "neither ready nor serving nor terminating",
        zone: "a",
        endpoints: &[("0", "dead")],
        cluster: &[],
        local: &[],
    },
];

#[test]
fn endpoints_are_chosen_as_kube_proxy_chooses_them() {
    for case in CASES {
        let endpoints: Vec<_> = case.endpoints.iter().map(|said| endpoint(*said)).collect();
        let site = Site {
            node: NODE,
            zone: case.zone,
        };
        let place = |address| (IpAddr::from([10, 1, 2, address]), 80);
        let candidates: Candidates<'_> = endpoints
            .iter()
            .map(|endpoint| ((endpoint.address, 80), Candidate::new(endpoint, site)))
            .collect();
        let wanted = Choice {
            cluster: case.cluster.iter().copied().map(place).collect(),
            local: case.local.iter().copied().map(place).collect(),
        };
        assert_eq!(choose(&candidates, site), wanted, "{}", case.name);
    }
}
