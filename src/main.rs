//! Stub.
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use wayside::policy::compile;

#[derive(Parser)]
enum Cli {
    #[command(subcommand)]
    Policy(wayside::cli::policy::Command),
    #[command(name = compile::SUBCOMMAND, hide = true)]
    Compile { input: PathBuf, output: PathBuf },
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Policy(command) => match wayside::cli::policy::run(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        Cli::Compile { input, output } => compile::child_main(&input, &output),
    }
}
