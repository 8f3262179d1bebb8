//! The `wayside` program.

fn main() -> std::process::ExitCode {
    wayside::cli::main()
}
