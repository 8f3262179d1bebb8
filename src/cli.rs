//! The command line.

pub mod policy;

use crate::config::Config;
use crate::policy::compile;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// An HTTP gateway that you script in WebAssembly.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Run the gateway. Prints `ready URL admin URL` once it serves; ends on SIGINT or SIGTERM after a drain.
    Run {
        /// The configuration file.
        #[arg(long, default_value = "wayside.toml")]
        config: PathBuf,
    },
    /// Check a configuration file and say what is wrong with it.
    Check {
        /// The configuration file.
        #[arg(long, default_value = "wayside.toml")]
        config: PathBuf,
    },
    /// Write and build policies.
    #[command(subcommand)]
    Policy(policy::Command),
    #[command(name = compile::SUBCOMMAND, hide = true)]
    Compile { input: PathBuf, output: PathBuf },
}

/// Runs the command that the process was given.
pub fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Compile { input, output } => return compile::child_main(&input, &output),
        Command::Policy(command) => policy::run(command),
        Command::Check { config } => Config::read(&config).map_err(Into::into).map(|config| {
            println!(
                "{}: good: {} services, {} routes",
                config.file.display(),
                config.services.len(),
                config.routes.len()
            );
        }),
        Command::Run { config } => {
            let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            Config::read(&config).map_err(Into::into).and_then(crate::gateway::run)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
