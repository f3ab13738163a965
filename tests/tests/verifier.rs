//! Every program of the object passes the verifier in every variant: code behind a switch that is off is never verified.
//!
//! Needs root and the object in `WEIR_EBPF_OBJECT` (`cargo xtask build`); says SKIP otherwise.

use aya::EbpfLoader;
use aya::programs::Program;

/// Most instructions that the verifier may walk through: half of the kernel's limit, so that no kernel comes close to it.
const INSTRUCTIONS: u32 = 500_000;

/// Switches of the programs, see `ebpf/src/maps.rs`: two of those for packets, each with one of those for sockets.
const SWITCHES: [[&str; 2]; 2] = [["DRY_RUN", "SERVES_PODS"], ["REPLAY", "CHOOSES_ERROR"]];

#[test]
fn every_variant_of_every_program_is_accepted() {
    if weir_tests::skip_without_root() {
        return;
    }
    let Some(object) = std::env::var_os("WEIR_EBPF_OBJECT") else {
        return println!("SKIP: WEIR_EBPF_OBJECT names no object (cargo xtask build)");
    };
    let object = std::fs::read(object).expect("object");
    for variant in 0..1_u32 << SWITCHES.len() {
        let values: Vec<u32> = (0..SWITCHES.len())
            .map(|switch| variant >> switch & 1)
            .collect();
        let mut loader = EbpfLoader::new();
        for (names, value) in SWITCHES.iter().zip(&values) {
            for name in names {
                loader.override_global(name, value, true);
            }
        }
        let netns = u64::from(variant);
        loader.override_global("NODE_NETNS", &netns, true);
        // The capacity of the largest maps says nothing here.
        loader
            .map_max_entries("flow", 64)
            .map_max_entries("backend", 64);
        let mut loaded = loader.load(&object).expect("maps");
        let mut programs = 0;
        for (name, program) in loaded.programs_mut() {
            match program {
                Program::SchedClassifier(program) => program.load(),
                Program::Xdp(program) => program.load(),
                Program::CgroupSockAddr(program) => program.load(),
                other => panic!("{name} is of a kind that nobody loads: {other:?}"),
            }
            .unwrap_or_else(|error| panic!("{name} with {SWITCHES:?} = {values:?}: {error}"));
            let verified = program
                .info()
                .expect("information")
                .verified_instruction_count();
            let verified = verified.expect("kernel 5.16");
            println!("{name:>12} {SWITCHES:?} = {values:?}: {verified} instructions verified");
            assert!(verified < INSTRUCTIONS, "{name} is close to too complex");
            programs += 1;
        }
        assert!(programs >= 12, "only {programs} programs");
    }
}
