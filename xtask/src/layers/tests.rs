//! Bad examples that the lint must find, and good ones it must not.

use super::*;

fn found(file: &str, text: &str) -> Vec<String> {
    check(file, text)
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn this_repository_keeps_its_layers() {
    assert_eq!(problems().unwrap(), []);
}

#[test]
fn a_stage_that_looks_to_its_right_is_found() {
    let text = "//! crate::datapath in a comment\nuse crate::{model::Pod,\n  plan::{Plan, Op}};\n";
    assert_eq!(
        found("agent/src/compile/policies.rs", text),
        [
            "agent/src/compile/policies.rs:3: `compile` must not use `plan::Plan`",
            "agent/src/compile/policies.rs:3: `compile` must not use `plan::Op`",
        ]
    );
    assert_eq!(found("agent/src/runtime.rs", text), [""; 0]);
}

#[test]
fn paths_in_code_macros_and_through_super_are_seen() {
    let code = "fn f() { select! { x => crate::state::apply(x) } }";
    assert_eq!(found("agent/src/source/kube.rs", code).len(), 1);
    assert_eq!(
        found("agent/src/source/mod.rs", "use super::state::State;").len(),
        1
    );
    assert_eq!(
        found("agent/src/source/kube.rs", "use super::super::state;").len(),
        1
    );
    assert_eq!(
        found("agent/src/source/kube.rs", "use super::state;"),
        [""; 0],
        "source::state is its own"
    );
    assert_eq!(
        found("agent/src/source.rs", "mod a { use super::super::state; }").len(),
        1
    );
}

#[test]
fn the_cli_gets_one_door_into_the_runtime() {
    assert_eq!(
        found("agent/src/cli/run.rs", "use crate::runtime::run;"),
        [""; 0]
    );
    assert_eq!(
        found(
            "agent/src/cli/run.rs",
            "use crate::runtime::{run, tasks::Tasks};"
        )
        .len(),
        1
    );
}

#[test]
fn tests_may_use_any_stage() {
    let text = "#[cfg(test)]\nmod tests { use crate::source::manifests; use kube::Client; }";
    assert_eq!(found("agent/src/compile.rs", text), [""; 0]);
    assert_eq!(
        found(
            "agent/src/compile/tests.rs",
            "use crate::source::manifests;"
        ),
        [""; 0]
    );
    assert_eq!(
        found(
            "agent/src/compile.rs",
            &text.replace("#[cfg(test)]", "#[cfg(unix)]")
        )
        .len(),
        2
    );
}

#[test]
fn libraries_stay_at_their_border() {
    assert_eq!(
        found("agent/src/state.rs", "use kube::Api;"),
        [
            "agent/src/state.rs:1: `kube` belongs to agent/src/source, agent/src/config, agent/src/runtime, agent/src/cli"
        ]
    );
    assert_eq!(
        found("agent/src/flows.rs", "fn f(m: aya::maps::Map) {}").len(),
        1
    );
    assert_eq!(
        found("agent/src/datapath/load.rs", "use aya::Ebpf;"),
        [""; 0]
    );
    assert_eq!(
        found(
            "agent/src/metrics.rs",
            "use crate::state::kube::Seen; mod m { struct aya; }"
        ),
        [""; 0]
    );
}

#[test]
fn unsafe_stays_at_the_border_to_the_kernel() {
    let text = "fn f() {\n    // unsafe\n    unsafe { g() }\n}";
    assert_eq!(found("common/src/logic/nat.rs", text).len(), 1);
    assert!(
        found("common/src/logic/nat.rs", text)[0]
            .starts_with("common/src/logic/nat.rs:3: `unsafe` outside")
    );
    assert_eq!(found("common/src/abi.rs", text), [""; 0]);
    assert_eq!(found("agent/src/datapath/bpf.rs", text), [""; 0]);
}

#[test]
fn long_files_and_unknown_modules_are_refused() {
    assert_eq!(found("xtask/src/x.rs", &"\n".repeat(800)), [""; 0]);
    assert_eq!(found("xtask/src/x.rs", &"\n".repeat(801)).len(), 1);
    assert!(found("agent/src/util.rs", "")[0].contains("no row in the layer table"));
    assert_eq!(found("agent/src/main.rs", "use weir::runtime;"), [""; 0]);
}
