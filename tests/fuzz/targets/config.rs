//! The configuration: any text is either good or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use wayside::config::Config;

fuzz_target!(|text: &str| {
    // It may name files; only those of a folder that does not exist.
    if text.contains("\"/") || text.contains("'/") || text.contains("\\") {
        return;
    }
    let read = Config::parse(Path::new("/nonexistent/wayside.toml"), text);
    if let Err(error) = read {
        assert!(!error.problem.is_empty());
    }
});
