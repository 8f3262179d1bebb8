//! Stub.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == wayside::policy::compile::SUBCOMMAND)
        && let (Some(input), Some(output)) = (args.next(), args.next())
    {
        return wayside::policy::compile::child_main(input.as_ref(), output.as_ref());
    }
    ExitCode::from(2)
}
