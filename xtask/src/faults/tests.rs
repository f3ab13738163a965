use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::copy::Copy;
use super::trial::{Bench, Outcome, judge};
use super::{AREAS, BORNE, Fault, Options, Shard, Suite, Test, choose, unit};
use crate::behaviours;
use crate::process::{self, minutes};
use crate::workspace;

/// The suite's name in `tests/behaviours.md`.
fn suite(test: Test) -> &'static str {
    match test.suite {
        Suite::Agent => "lib",
        Suite::Simulated(name) | Suite::Loaded(name) => name,
    }
}

#[test]
fn every_fault_has_its_place_and_its_test() {
    let root = workspace::root();
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for (area, faults) in AREAS {
        assert!(faults.len() >= 8, "{area}: {} faults", faults.len());
        for fault in faults {
            let Fault {
                name,
                file,
                find,
                replace,
                test,
            } = fault;
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            let count = text.matches(find).count();
            if count != 1 || find == replace {
                wrong.push(format!("{name}: {find:?} is {count} times in {file}"));
            }
            if !behaviours::exists(&root, suite(*test), test.name) {
                wrong.push(format!("{name}: there is no {test}"));
            }
            if !names.insert((area, name)) {
                wrong.push(format!("{name}: twice"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    for (name, reason) in BORNE {
        assert!(
            names.iter().any(|(_, known)| **known == name),
            "{name}: {reason}"
        );
    }
    assert!(names.len() >= 40, "{} faults", names.len());
}

/// A repository with one function and two tests of it.
fn repository(root: &Path) {
    let file = |name: &str, text: &str| {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    file(
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"agent\"]\n",
    );
    file(
        "Cargo.lock",
        "version = 4\n\n[[package]]\nname = \"weir\"\nversion = \"0.1.0\"\n",
    );
    file(
        "agent/Cargo.toml",
        "[package]\nname = \"weir\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
    );
    file(
        "agent/src/lib.rs",
        "pub fn in_range(port: u16) -> bool {\n    port >= 80 && port <= 90\n}\n\n\
         #[test]\nfn inside() {\n    assert!(in_range(85));\n}\n\n\
         #[test]\nfn edges() {\n    assert!(in_range(80) && in_range(90) && !in_range(91));\n}\n",
    );
    file(".gitignore", "/target\n");
    let mut git = Command::new("git");
    process::run(git.args(["init", "--quiet"]).current_dir(root), minutes(1)).unwrap();
}

const fn fault(find: &'static str, replace: &'static str, test: &'static str) -> Fault {
    let (name, file) = ("the last port is not in the range", "agent/src/lib.rs");
    Fault {
        name,
        file,
        find,
        replace,
        test: unit(test),
    }
}

#[test]
fn a_fault_is_caught_or_survives_and_what_is_no_trial_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    repository(root);
    let copy = || Copy::make(root, &root.join("target/faults"));
    let mut bench = Bench::new(copy().unwrap(), minutes(2)).unwrap();
    let busy = copy().unwrap_err();
    assert!(busy.to_string().contains("in use"), "{busy}");
    let tests = [unit("inside"), unit("edges")].into();
    bench.unbroken(&tests).unwrap();

    let find = "port <= 90";
    let mut plant = |replace, test| bench.plant(&fault(find, replace, test)).unwrap();
    assert_eq!(plant("port < 90", "edges"), Outcome::Caught);
    assert_eq!(plant("port < 90", "inside"), Outcome::Survived);
    assert!(matches!(plant("port <", "edges"), Outcome::Broken(why) if why.contains("error")));
    assert!(
        matches!(plant("port < 90", "edge"), Outcome::Broken(why) if why.contains("not exactly 1"))
    );
    let stale = bench.plant(&fault("port", "number", "edges")).unwrap_err();
    assert!(stale.to_string().contains("is stale"), "{stale}");
    bench.unbroken(&tests).unwrap();
    drop(bench);

    let file = root.join("agent/src/lib.rs");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("90 }", "89 }").replace("<= 90", "<= 89"),
    )
    .unwrap();
    let mut bench = Bench::new(copy().unwrap(), minutes(2)).unwrap();
    let fails = bench.unbroken(&tests).unwrap_err();
    assert!(fails.to_string().contains("without any fault"), "{fails}");
}

#[test]
fn the_output_of_a_test_says_what_came_of_it() {
    let begun = "running 1 test\n";
    let passed = "test a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored";
    let skipped = "test a ... ok\n\nsuccesses:\n\n---- a stdout ----\nSKIP: no tcx\n\n\n\
        successes:\n    a\n\ntest result: ok. 1 passed; 0 failed; 0 ignored";
    for (output, success, outcome) in [
        (format!("{begun}{passed}"), true, Outcome::Survived),
        (format!("{begun}test a ... FAILED"), false, Outcome::Caught),
        // It crashed, or was stopped.
        (begun.to_owned(), false, Outcome::Caught),
        (
            format!("{begun}{skipped}"),
            true,
            Outcome::Skipped("no tcx".to_owned()),
        ),
    ] {
        assert_eq!(judge(&output, success, 1), outcome, "{output}");
    }
    for output in ["", "running 0 tests", "running 2 tests"] {
        assert!(
            matches!(judge(output, true, 1), Outcome::Broken(_)),
            "{output}"
        );
    }
}

#[test]
fn shards_share_all_faults() {
    let options = |only: Option<&str>, shard: Option<&str>| Options {
        only: only.map(str::to_owned),
        area: None,
        shard: shard.map(|shard| shard.parse().unwrap()),
        minutes: 1,
        list: false,
    };
    let all = choose(&options(None, None)).len();
    let shards = ["1/3", "2/3", "3/3"].map(|shard| choose(&options(None, Some(shard))).len());
    assert_eq!(shards.iter().sum::<usize>(), all);
    assert!(
        shards.iter().all(|count| count.abs_diff(all / 3) <= 1),
        "{shards:?}"
    );
    let some = choose(&options(Some("never ends"), None));
    assert_eq!(
        some.iter().map(|(_, fault)| fault.name).collect::<Vec<_>>(),
        ["affinity never ends"]
    );
    let areas = ["logic", "compiler", "agent", "answers", "ebpf"].map(|area| {
        let area = Some(area.to_owned());
        let options = Options {
            area,
            ..options(None, None)
        };
        choose(&options).len()
    });
    assert_eq!(areas.iter().sum::<usize>(), all);
    assert!(areas.iter().all(|count| *count > 0), "{areas:?}");
    for wrong in ["0/3", "4/3", "1", "a/b"] {
        assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
    }
}
