//! The targets of `images`: this file is built once for each, under its name.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = env!("CARGO_BIN_NAME");
    let target = images::fuzz::TARGETS.iter().find(|(known, _)| *known == name);
    let _ = (target.expect("a target of this name").1)(bytes);
});
