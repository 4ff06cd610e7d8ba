//! libFuzzer's entry: runs the target that P2POS_FUZZ_TARGET names. One program for all targets, because linking each on its own would
//! take longer than fuzzing it for a minute. Without a main of its own: libFuzzer brings one.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| target()(bytes));

fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("P2POS_FUZZ_TARGET").expect("cargo xtask fuzz names the target");
        let found = p2pos_fuzz::TARGETS.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("no target is called {name}")).run
    })
}
