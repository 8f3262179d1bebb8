//! hostile: a policy that goes wrong in the way that its config names, or, without one, the header `x-hostile`.
//! For tests only. What is not listed here is `next`.
wit_bindgen::generate!({ path: ["../../../wit", "wit"], world: "tests:hostile/hostile", generate_all });
use exports::wayside::policy::routing::{Decision, Guest, Response};
use std::hint::black_box;
use std::sync::OnceLock;
use wasi::{cli::stderr::get_stderr, clocks::monotonic_clock::subscribe_duration, io::poll::poll};
use wayside::policy::{edit, plan, request};

static CONFIG: OnceLock<String> = OnceLock::new();
const SECOND: u64 = 1_000_000_000;
struct Hostile;

impl Guest for Hostile {
    fn init(config: String) -> Result<(), String> {
        match config.as_str() {
            "init-error" => return Err("init was told to fail".into()),
            "init-loop" => spin(),
            "init-panic" => panic!("init was told to panic"),
            "init-read" => drop(request::path()),
            _ => {}
        }
        CONFIG.set(config).map_err(|_| "init called twice".into())
    }

    fn decide() -> Result<Decision, String> {
        let config = CONFIG.get().map_or("", String::as_str);
        let how = if config.is_empty() { request::header("x-hostile").unwrap_or_default() } else { config.into() };
        match how.as_str() {
            "loop" => spin(),
            "panic" => panic!("decide was told to panic"),
            "memory" => hoard(),
            "stack" => _ = black_box(dig(0)),
            "sleep" => subscribe_duration(SECOND).block(),
            "poll" => _ = poll(&[&subscribe_duration(SECOND)]),
            "poll-busy" => {
                let later = subscribe_duration(10 * SECOND);
                while !later.ready() {}
            }
            "print" => {
                let out = get_stderr();
                for _ in 0..256 {
                    out.blocking_write_and_flush(&[b'x'; 4096]).map_err(|e| e.to_string())?;
                }
            }
            "error" => return Err("decide was told to fail".into()),
            "unknown-service" => return Ok(Decision::Forward("nowhere".into())),
            "bad-status" => return Ok(Decision::Respond(Response { status: 99, headers: vec![], body: "".into() })),
            "big-body" => {
                let body = "x".repeat((64 << 10) + 1);
                return Ok(Decision::Respond(Response { status: 200, headers: vec![], body }));
            }
            "bad-header" => edit::set_header("x-split", "a\r\nx-smuggled: 1"),
            "zero-timeout" => plan::timeout_ms(0),
            _ => {}
        }
        Ok(Decision::Next)
    }
}

fn spin() {
    for i in 0u64.. {
        black_box(i);
    }
}

fn hoard() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn dig(depth: u64) -> u64 {
    black_box(depth) + black_box(dig(depth + 1))
}
export!(Hostile);
