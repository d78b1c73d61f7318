//! The program `dinp-builder`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dinp_common::daemon::main("builder", "Makes images of packages and pushes them to the registry", dinp_builder::run)
}
