//! The `wayside` program.

/// A request makes and drops some thirty small things, most of them hyper's, and this allocator is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    wayside::cli::main()
}
