//! The command line.

pub mod check;
mod credentials;
pub mod demo;
mod fleet;
mod out;
pub mod policy;
mod push;
mod record;
mod register;
mod replay;
mod run;
mod running;

use crate::base::lines;
use crate::policy::compile;
use crate::telemetry::log;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// An HTTP gateway that you script in WebAssembly.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Run the gateway. Prints `ready URL admin URL` once it serves; ends on SIGINT or SIGTERM after a drain.
    Run(Box<run::Args>),
    /// Check a configuration file and its policies, and say what is wrong with them.
    Check {
        /// The configuration file.
        #[arg(long, default_value = "wayside.toml")]
        config: PathBuf,
    },
    /// See it at work: two services, a gateway and a canary policy in this process, and curl lines to try. Needs no set-up.
    Demo(demo::Args),
    /// Ask several running gateways whether they know the same, and say who differs in what.
    Fleet(fleet::Args),
    /// Put a folder of configuration and policies into Consul or etcd, for many gateways.
    Push(Box<push::Args>),
    /// Run a service, and keep it in a registry while it serves.
    Register(Box<register::Args>),
    /// Record the decisions of a running gateway for a while, in a file that `replay` reads.
    Record(Box<record::Args>),
    /// Make recorded decisions again, offline: by the same versions, or by another one.
    Replay(Box<replay::Args>),
    /// Write and build policies, and see to the versions of a running gateway.
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
        Command::Check { config } => {
            log::start("warn");
            check::run(&config)
        }
        Command::Fleet(args) => {
            log::start("warn");
            fleet::run(&args)
        }
        Command::Register(args) => {
            log::start("warn");
            match register::run(*args) {
                Ok(code) => {
                    log::finish();
                    return code;
                }
                Err(error) => Err(error),
            }
        }
        Command::Record(args) => {
            log::start("warn");
            record::run(&args)
        }
        Command::Replay(args) => {
            log::start("warn");
            match replay::run(&args) {
                Ok(code) => {
                    log::finish();
                    return code;
                }
                Err(error) => Err(error),
            }
        }
        Command::Demo(args) => {
            log::start("warn");
            demo::run(&args)
        }
        Command::Run(args) => {
            log::start("info");
            run::run(*args)
        }
        Command::Push(args) => {
            log::start("warn");
            push::run(*args)
        }
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lines::error().push(|| format!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    };
    log::finish();
    code
}
