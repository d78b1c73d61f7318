//! `dinp-hm`: asks every instance whether it is well.

use std::process::ExitCode;

fn main() -> ExitCode {
    dinp_common::daemon::main(
        "hm",
        "DINP health monitor: probes every instance of apps with a health check",
        dinp_hm::run,
    )
}
