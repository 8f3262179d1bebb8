//! The command line.

pub mod check;
pub mod demo;
pub mod policy;

use crate::control::config::Config;
use crate::gateway;
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
    /// Check a configuration file and its policies, and say what is wrong with them.
    Check {
        /// The configuration file.
        #[arg(long, default_value = "wayside.toml")]
        config: PathBuf,
    },
    /// See it at work: two services, a gateway and a canary policy in this process, and curl lines to try. Needs no set-up.
    Demo(demo::Args),
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
        Command::Check { config } => check::run(&config),
        Command::Demo(args) => {
            log_to_stderr("warn");
            demo::run(&args)
        }
        Command::Run { config } => {
            log_to_stderr("info");
            Config::read(&config).map_err(Into::into).and_then(|config| {
                gateway::run(config, |listeners, admin| println!("{}", gateway::ready_line(listeners, admin)))
            })
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

/// The log goes to standard error, at what `RUST_LOG` says. Colours where a person reads, unless `NO_COLOR` is set.
fn log_to_stderr(default: &str) {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
