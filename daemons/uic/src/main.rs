//! `dinp-uic`: users, teams and sign-on.

use clap::{Arg, Command, ValueHint, value_parser};
use dinp_common::daemon::Daemon;
use dinp_common::man::Manual;
use std::path::PathBuf;
use std::process::ExitCode;

const MANUAL: Manual = Manual {
    about: "Users, teams and sign-on of DINP",
    description: "\
Keeps users and teams in MySQL, signs people in, and tells the dashboard who somebody is.

While none runs, nobody can sign in, and the dashboard turns people away once it has to ask again who they are \
(token_cache_secs); apps run on and are served.",
    unit: include_str!("../../../systemd/dinp-uic.service"),
};

fn main() -> ExitCode {
    let create_admin = Command::new("create-admin")
        .about("Create an administrator; changes nothing if the user exists")
        .arg(Arg::new("name").value_name("NAME").required(true).help("Name of the user: a DNS label"))
        .arg(
            Arg::new("password-file")
                .long("password-file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("File with the password, - for standard input; without it one is made and printed"),
        );
    Daemon::new("uic", MANUAL)
        .subcommand(create_admin, |matches, loaded| async move {
            let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
            let password_file = matches.get_one::<PathBuf>("password-file").cloned();
            dinp_uic::create_admin(loaded, &name, password_file.as_deref()).await
        })
        .main(dinp_uic::run)
}
