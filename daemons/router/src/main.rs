//! `dinp-router`: HTTP for the apps, by host name.

use std::process::ExitCode;

fn main() -> ExitCode {
    dinp_common::daemon::main(
        "router",
        "DINP router: sends each request to an instance of the app it is for",
        dinp_router::run,
    )
}
