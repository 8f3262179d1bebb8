//! What `wit/policy.wit` is in Rust: types and traits that wasmtime's macro writes.
#![allow(missing_docs, unreachable_pub, unsafe_code, reason = "generated")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "policy",
    exports: { default: async },
    require_store_data_send: true,
});
