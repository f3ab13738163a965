use super::*;
use crate::model::{ObjectName, Tier};

fn policy(name: &str, pods: usize) -> PolicyRow {
    PolicyRow {
        tier: Tier::NetworkPolicy,
        priority: None,
        policy: ObjectName::new("shop", name),
        labels: [].into(),
        subject: String::new(),
        ingress_rules: Some(1),
        egress_rules: None,
        pods,
        local_pods: 0,
    }
}

const LIST: List<PolicyRow> = List {
    kind: "PolicyList",
    table: print::policies,
    key: |row| row.policy.to_string(),
};

/// What a watch prints of these moments.
fn watched(moments: &[&[PolicyRow]], how: (Headers, ListFormat)) -> String {
    let mut text = LIST.begin(moments[0], how).unwrap();
    for pair in moments.windows(2) {
        let changed = changes(pair[0], pair[1], LIST.key);
        text += &LIST.lines(&changed, pair[0], how).unwrap();
    }
    text
}

#[test]
fn changes_are_what_comes_what_goes_and_what_differs() {
    let before = [policy("a", 1), policy("b", 1), policy("c", 1)];
    let now = [policy("d", 1), policy("b", 2), policy("c", 1)];
    let changed = changes(&before, &now, LIST.key);
    let changed: Vec<_> = changed
        .iter()
        .map(|(happened, row)| (*happened, row.policy.name.as_str(), row.pods))
        .collect();
    let expected = [
        (Happened::Deleted, "a", 1),
        (Happened::Added, "d", 1),
        (Happened::Modified, "b", 2),
    ];
    assert_eq!(changed, expected);
}

#[test]
fn a_watch_prints_the_list_and_then_lines() {
    let moments: [&[PolicyRow]; 4] = [
        &[policy("deny", 2), policy("to-back", 1)],
        &[policy("deny", 2), policy("to-back", 0)],
        &[policy("deny", 2), policy("to-back", 0)],
        &[policy("a-name-that-is-longer", 1), policy("to-back", 0)],
    ];
    let table = watched(&moments, (Headers::default(), ListFormat::Table));
    let bare = watched(&moments, (Headers { no_headers: true }, ListFormat::Wide));
    insta::assert_snapshot!(format!("{table}\n{bare}"));
}

#[test]
fn a_watch_in_json_is_a_line_for_each_change() {
    let moments: [&[PolicyRow]; 2] = [&[policy("deny", 2)], &[]];
    let text = watched(&moments, (Headers::default(), ListFormat::Json));
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| [&line["type"], &line["object"]["policy"]["name"]])
        .map(|told| told.map(|it| it.as_str().unwrap()))
        .collect();
    assert_eq!(told, [["ADDED", "deny"], ["DELETED", "deny"]]);
}
