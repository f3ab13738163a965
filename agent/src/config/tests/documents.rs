//! The definition of each option, what is printed of it, and the page about it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::config::definition::{Definition, definitions, from_flags};
use crate::config::{Effective, RunConfig, Setting, Source, defaults, file, reference};

#[test]
fn every_option_has_flag_variable_key_and_meaning() {
    let mut keys = BTreeSet::new();
    for option in definitions() {
        let flag = option.flag();
        let name = flag.trim_start_matches('-').replace('-', "_");
        assert!(!name.is_empty(), "{option:?} has no flag");
        let variable = format!("WEIR_{}", name.to_uppercase());
        assert_eq!(option.environment(), variable, "write env = {variable:?}");
        assert!(!option.meaning().is_empty(), "{flag} has no doc comment");
        assert!(
            option.takes_value(),
            "{flag} must take a value (action = Set), or it cannot undo what a file says"
        );
        let unset_list = option.write(&[]).is_array();
        assert!(
            !unset_list || option.defaults().is_empty(),
            "{flag} is a list with a default, which [] in a file could not undo"
        );
        assert!(keys.insert(option.key()), "{flag} has another one's key");
    }
    assert!(keys.contains("flowCapacity") && keys.contains("apiServers"));
}

/// What a file of this text sets.
fn read(text: &str) -> RunConfig {
    let file =
        file::parse(Path::new("weir.yaml"), text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let flags = definitions().into_iter().flat_map(|option| {
        let values = file.values.get(option.id());
        values.map_or_else(Vec::new, |(values, _)| option.flags(values))
    });
    from_flags(flags).unwrap()
}

#[test]
fn the_defaults_as_a_file_are_the_defaults() {
    let text = defaults();
    assert_eq!(read(&text), from_flags([]).unwrap());
    for option in definitions() {
        assert!(text.contains(&format!("# {}\n", option.meaning())));
    }
}

#[test]
fn the_reference_page_is_that_of_the_definitions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/configuration.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == reference(),
        "options changed: run `weir config reference > deploy/configuration.md`"
    );
}

/// Texts of which every option that takes not just any text takes one.
const SAMPLES: [&str; 13] = [
    "tcx",
    "auto",
    "json",
    "host",
    "all",
    "none",
    "reset",
    "judge",
    "keep",
    "10.0.0.0/8",
    "[fd00::1]:80",
    "30s",
    "0.5",
];

/// Values that an option takes, or none.
fn values(option: &Definition) -> BoxedStrategy<Vec<OsString>> {
    // What YAML can print, as JSON too (no other control characters), without the end of a list's item.
    let printable = "[\n\t -+\\--~\u{a0}-\u{d7ff}\u{e000}-\u{fefe}\u{10000}-\u{10ffff}]{1,12}";
    let texts = prop_oneof![
        printable,
        "[ -+\\--~]{1,100}",
        prop::sample::select(&SAMPLES[..]).prop_map(str::to_owned),
    ];
    let option = option.clone();
    let given = match option.write(&option.defaults()) {
        Value::Array(_) => prop::collection::vec(texts.prop_map(Value::from), 1..4)
            .prop_map(Value::from)
            .boxed(),
        Value::Number(_) => prop_oneof![0..=100_u32, 0..=16_777_216_u32]
            .prop_map(Value::from)
            .boxed(),
        Value::Bool(_) => any::<bool>().prop_map(Value::from).boxed(),
        _ => texts.prop_map(Value::from).boxed(),
    };
    let taken = move |value: &Value| option.read(value).ok().flatten();
    prop_oneof![
        Just(Vec::new()),
        given.prop_map(move |value| taken(&value).unwrap_or_default())
    ]
    .boxed()
}

/// A configuration with options from their environment variables.
fn configurations() -> impl Strategy<Value = Effective> {
    let each: Vec<_> = definitions().iter().map(values).collect();
    each.prop_filter_map("options that exclude each other", |values| {
        let setting = |(option, values): (Definition, Vec<OsString>)| {
            let (values, source) = if values.is_empty() {
                (option.defaults(), Source::Default)
            } else {
                (values, Source::Environment(option.environment()))
            };
            Setting {
                option,
                values,
                source,
            }
        };
        let settings: Vec<_> = definitions().into_iter().zip(values).map(setting).collect();
        let given = settings.iter().filter(|one| one.source != Source::Default);
        let flags = given.flat_map(|one| one.option.flags(&one.values));
        Some(Effective {
            config: from_flags(flags).ok()?,
            settings,
            ignored: Vec::new(),
        })
    })
}

#[test]
fn generated_configurations_set_every_option() {
    for option in definitions() {
        let mut runner = TestRunner::deterministic();
        let set = (0..500).any(|_| {
            let values = values(&option).new_tree(&mut runner).unwrap().current();
            !values.is_empty() && values != option.defaults()
        });
        assert!(set, "add a value that {} takes to SAMPLES", option.flag());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_printed_gives_the_same_configuration(effective in configurations()) {
        prop_assert_eq!(&read(&effective.to_yaml()), &effective.config);
        let json = effective.to_json();
        prop_assert_eq!(&read(&json["configuration"].to_string()), &effective.config);
        let sources = json["sources"].as_object().unwrap();
        prop_assert_eq!(sources.len(), effective.settings.len());
    }
}
