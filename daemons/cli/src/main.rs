//! `dinp`: the command line of DINP, for users and operators.

use std::process::ExitCode;

fn main() -> ExitCode {
    dinp_cli::main(std::env::args_os())
}
