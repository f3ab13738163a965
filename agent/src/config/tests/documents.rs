//! The definition of each option, what is printed of it, and the page about it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use proptest::prelude::*;

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

/// Values that an option takes, by what it looks like.
fn values(option: &Definition) -> BoxedStrategy<Vec<OsString>> {
    // What YAML can print, as JSON too (no other control characters), without the end of a list's item.
    let printable = "[\n\t -+\\--~\u{a0}-\u{d7ff}\u{e000}-\u{fefe}\u{10000}-\u{10ffff}]{1,12}";
    let text = || prop_oneof![printable, "[ -+\\--~]{1,100}"].boxed();
    let one = |text: BoxedStrategy<String>| text.prop_map(|text| vec![text.into()]).boxed();
    let name = option.expected();
    let given = match name.as_str() {
        "a whole number" => one((1024_u32..=16_777_216)
            .prop_map(|one| one.to_string())
            .boxed()),
        "a text (ADDRESS:PORT)" => one(any::<std::net::SocketAddr>()
            .prop_map(|one| one.to_string())
            .boxed()),
        "a text (MODE)" => one(prop_oneof!["auto", "tcx", "clsact"].boxed()),
        list if list.starts_with("a list") => {
            let items = prop::collection::vec(text().prop_map(OsString::from), 1..4);
            items.boxed()
        }
        choices if choices.starts_with("one of ") => {
            let choices: Vec<String> = choices["one of ".len()..]
                .split(", ")
                .map(str::to_owned)
                .collect();
            one(prop::sample::select(choices).boxed())
        }
        truth if truth.starts_with("true") => {
            one(any::<bool>().prop_map(|one| one.to_string()).boxed())
        }
        _ => one(text()),
    };
    prop_oneof![Just(Vec::new()), given].boxed()
}

/// Every option with values; those that exclude each other are not both given.
fn settings() -> impl Strategy<Value = Vec<Setting>> {
    let each: Vec<_> = definitions().iter().map(values).collect();
    (each, any::<bool>()).prop_map(|(values, manifests)| {
        let with_values = definitions().into_iter().zip(values);
        let left_out = |id: &str| match id {
            "manifests" => !manifests,
            "kubeconfig" | "api_servers" => manifests,
            _ => false,
        };
        let setting = |(option, mut values): (Definition, Vec<OsString>)| {
            if left_out(option.id()) {
                values.clear();
            }
            let source = if values.is_empty() {
                values = option.defaults();
                Source::Default
            } else {
                Source::Environment(option.environment())
            };
            Setting {
                option,
                values,
                source,
            }
        };
        with_values.map(setting).collect()
    })
}

proptest! {
    #[test]
    fn what_is_printed_gives_the_same_configuration(settings in settings()) {
        let given = settings.iter().filter(|one| one.source != Source::Default);
        let flags = given.flat_map(|one| one.option.flags(&one.values));
        let effective = Effective {
            config: from_flags(flags).unwrap(),
            settings,
            ignored: Vec::new(),
        };
        prop_assert_eq!(&read(&effective.to_yaml()), &effective.config);
        let json = effective.to_json();
        prop_assert_eq!(&read(&json["configuration"].to_string()), &effective.config);
        let sources = json["sources"].as_object().unwrap();
        prop_assert_eq!(sources.len(), effective.settings.len());
    }
}
