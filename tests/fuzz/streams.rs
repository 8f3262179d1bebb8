//! A client's bytes, read by the strict parser and by hyper.
#![no_main]

mod differ;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    differ::compare(bytes);
});
