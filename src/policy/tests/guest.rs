//! Guests for tests, written in WebAssembly text: there is no compiler to be had that makes them from anything else.

use std::fmt::Write as _;
use std::path::Path;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A policy under construction. Its functions are bodies in WebAssembly text; helpers do the rest:
///
/// - `$forward` and `$fail` take a text and give what `decide` and `init` return, `$next` and `$ok` take nothing,
///   `$respond` takes a status and a text;
/// - what imports return goes to address 64, and the heap starts anew with each `decide`.
pub(crate) struct Guest {
    imports: String,
    data: Vec<u8>,
    globals: String,
    init: String,
    decide: String,
}

/// Where texts start.
const TEXTS: usize = 1024;
/// Where the heap starts.
const HEAP: usize = 16 << 10;

impl Guest {
    pub(crate) fn new() -> Self {
        Guest {
            imports: String::new(),
            data: Vec::new(),
            globals: String::new(),
            init: "call $ok".into(),
            decide: "call $next".into(),
        }
    }

    /// Imports a function of an interface; called as `$interface.function`.
    pub(crate) fn import(mut self, interface: &str, function: &str, signature: &str) -> Self {
        let module = match interface.split_once(':') {
            Some(_) => format!("{interface}@0.2.0"),
            None => format!("wayside:policy/{interface}@0.1.1"),
        };
        let line = r#"(import "{module}" "{function}" (func ${interface}.{function} {signature}))"#;
        let line = line.replace("{module}", &module).replace("{function}", function);
        let line = line.replace("{interface}", interface).replace("{signature}", signature);
        // Brackets are no part of an identifier.
        let name = line.find("(func ").unwrap();
        let (head, tail) = line.split_at(name);
        writeln!(self.imports, "{head}{}", tail.replace(['[', ']'], "")).unwrap();
        self
    }

    /// Puts a text into the guest's memory; gives what pushes its address and length.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let at = TEXTS + self.data.len();
        self.data.extend_from_slice(text.as_bytes());
        assert!(TEXTS + self.data.len() <= HEAP);
        format!("(i32.const {at}) (i32.const {})", text.len())
    }

    /// More definitions.
    pub(crate) fn globals(mut self, globals: &str) -> Self {
        self.globals = globals.into();
        self
    }

    pub(crate) fn init(mut self, body: &str) -> Self {
        self.init = body.into();
        self
    }

    pub(crate) fn decide(mut self, body: &str) -> Self {
        self.decide = body.into();
        self
    }

    /// Changes the body of `decide` once its texts have addresses.
    pub(crate) fn map_decide(mut self, change: impl FnOnce(String) -> String) -> Self {
        self.decide = change(self.decide);
        self
    }

    /// A core module that knows its component type, which is what `rustc` makes as well.
    pub(crate) fn module(self) -> Vec<u8> {
        self.build(str::to_owned)
    }

    /// As `module`, built with the WIT of a newer gateway, where `request` has one function more: `protocol`.
    pub(crate) fn newer_module(self) -> Vec<u8> {
        self.build(|text| {
            let newer = text.replace("@0.1.1", "@0.1.2");
            newer.replace("interface request {", "interface request {\n  protocol: func() -> string;")
        })
    }

    fn build(self, edit: impl Fn(&str) -> String) -> Vec<u8> {
        let Guest { imports, data, globals, init, decide } = self;
        let data: String = data.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let text = format!(
            r#"(module
            {imports}
            (memory (export "memory") 1)
            (data (i32.const {TEXTS}) "{data}")
            (global $heap (mut i32) (i32.const {HEAP}))
            {globals}
            (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
                (global.set $heap (i32.add (local.get $at) (local.get 3)))
                (block $fits
                    (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
                    (br_if $fits (i32.ne (i32.const -1)
                        (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get 3) (i32.const 16))))))
                    unreachable)
                (local.get $at))
            (func $ok (result i32) (memory.fill (i32.const 16) (i32.const 0) (i32.const 48)) (i32.const 16))
            (func $next (result i32) call $ok)
            (func $fail (param i32 i32) (result i32)
                (drop (call $ok))
                (i32.store8 (i32.const 16) (i32.const 1))
                (i32.store (i32.const 20) (local.get 0)) (i32.store (i32.const 24) (local.get 1))
                (i32.const 16))
            (func $forward (param i32 i32) (result i32)
                (drop (call $ok))
                (i32.store8 (i32.const 20) (i32.const 1))
                (i32.store (i32.const 24) (local.get 0)) (i32.store (i32.const 28) (local.get 1))
                (i32.const 16))
            (func $respond (param i32 i32 i32) (result i32)
                (drop (call $ok))
                (i32.store8 (i32.const 20) (i32.const 2))
                (i32.store16 (i32.const 24) (local.get 0))
                (i32.store (i32.const 36) (local.get 1)) (i32.store (i32.const 40) (local.get 2))
                (i32.const 16))
            (func (export "wayside:policy/routing@0.1.1#init") (param $config i32) (param $length i32) (result i32)
                {init})
            (func (export "wayside:policy/routing@0.1.1#decide") (result i32)
                (local $i i32)
                (global.set $heap (i32.const {HEAP}))
                {decide}))"#
        );
        let text = edit(&text);
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let policy = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("wit/policy.wit")).unwrap();
        let mut resolve = Resolve::default();
        resolve.push_str("policy.wit", &edit(&policy)).unwrap();
        let package = resolve.push_str("guest.wit", &edit(WORLD)).unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        module
    }
}

/// A policy that may also use the WASI that some tests need.
const WORLD: &str = "
package test:guest;
world guest {
  include wayside:policy/policy@0.1.1;
  import wasi:io/poll@0.2.0;
  import wasi:io/streams@0.2.0;
  import wasi:cli/stderr@0.2.0;
  import wasi:clocks/monotonic-clock@0.2.0;
  import wasi:random/random@0.2.0;
}
package wasi:io@0.2.0 {
  interface error { resource error; }
  interface poll { resource pollable { block: func(); ready: func() -> bool; } }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
  }
}
package wasi:cli@0.2.0 {
  interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
}
package wasi:clocks@0.2.0 {
  interface monotonic-clock {
    use wasi:io/poll@0.2.0.{pollable};
    now: func() -> u64;
    subscribe-duration: func(when: u64) -> pollable;
  }
}
package wasi:random@0.2.0 {
  interface random { get-random-u64: func() -> u64; }
}
";
