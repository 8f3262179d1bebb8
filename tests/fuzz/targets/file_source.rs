//! What a file source reads: any text is either good or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wayside::discovery::file::parse;

fuzz_target!(|text: &str| {
    if let Err(problem) = parse(text) {
        assert!(!problem.is_empty());
    }
});
