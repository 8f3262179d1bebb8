//! A file source's text: it is refused, or each endpoint can be reached and is there once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use wayside::discovery::file;

fuzz_target!(|text: &str| {
    let Ok(services) = file::parse(text) else { return };
    for observed in services.values() {
        let mut seen = HashSet::new();
        assert!(observed.endpoints.iter().all(|entry| entry.address.port() > 0 && seen.insert(entry.address)));
    }
});
