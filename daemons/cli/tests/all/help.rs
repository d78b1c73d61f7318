//! What `--help` teaches.

use crate::support::{World, golden};
use axum::Router;

#[tokio::test(flavor = "multi_thread")]
async fn help_teaches() {
    let world = World::new(Router::new()).await;
    for (name, args) in [
        ("help.txt", &["--help"][..]),
        ("help-deploy.txt", &["deploy", "--help"]),
        ("help-app.txt", &["app", "--help"]),
        ("help-app-deploy.txt", &["app", "deploy", "--help"]),
        ("help-env-set.txt", &["app", "env", "hello", "set", "--help"]),
        ("help-env.txt", &["app", "env", "--help"]),
        ("help-build.txt", &["build", "--help"]),
        ("help-login.txt", &["login", "--help"]),
        ("help-logs.txt", &["logs", "--help"]),
        ("help-node-add.txt", &["node", "add", "--help"]),
    ] {
        let ended = world.run(args, &[], "").await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{name}");
        golden(name, &ended.stdout);
    }
    assert!(world.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_made_for_each_shell() {
    let world = World::new(Router::new()).await;
    for shell in ["bash", "zsh", "fish"] {
        let ended = world.run(&["completions", shell], &[], "").await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(ended.stdout.contains("rollback"), "{shell}");
    }
}

#[test]
fn the_guide_names_every_command() {
    use clap::CommandFactory;
    let guide = include_str!("../../../../docs/cli.md");
    for command in dinp_cli::args::Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("dinp {}", command.get_name());
        assert!(guide.contains(&name), "docs/cli.md does not mention `{name}`");
        for sub in command.get_subcommands() {
            let name = format!("{name} {}", sub.get_name());
            assert!(guide.contains(&name), "docs/cli.md does not mention `{name}`");
        }
    }
}
