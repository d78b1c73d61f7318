//! Every command has a manual page, and the page is what `--help` says.

use crate::support::World;
use axum::Router;
use clap::{Command, CommandFactory};
use dinp_cli::args::Cli;

/// Name of each command's page without its section, with its options, arguments and subcommands as the page has them.
fn wanted(command: &Command, pages: &mut Vec<(String, Vec<String>)>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let mut words: Vec<String> = Vec::new();
    for argument in arguments {
        words.extend(argument.get_long().map(|long| format!("--{long}")));
        words.extend(argument.get_short().map(|short| format!("-{short}")));
        words.extend(argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string));
    }
    let subcommands: Vec<_> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    words.extend(subcommands.iter().map(|sub| format!("{name}-{}(1)", sub.get_name())));
    pages.push((name, words));
    for sub in subcommands {
        wanted(sub, pages);
    }
}

/// As the words of the grammar stand in roff.
fn escaped(text: &str) -> String {
    text.replace('-', r"\-").replace('\'', r"\*(Aq").replace('`', r"\(ga")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_a_page_with_all_its_options() {
    let world = World::new(Router::new()).await;
    let dir = world.home.path().join("man");
    std::fs::create_dir(&dir).unwrap();
    let ended = world.run(&["man", dir.to_str().unwrap()], &[], "").await;
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));

    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    wanted(&root, &mut pages);
    for name in ["dinp", "dinp-deploy", "dinp-app-env-set", "dinp-setup-single"] {
        assert!(pages.iter().any(|(page, _)| page == name), "{name} is not expected");
    }
    for (name, words) in &pages {
        let page = std::fs::read_to_string(dir.join(format!("{name}.1"))).unwrap_or_default();
        assert!(page.contains(&format!(".TH {name} 1 ")), "{name}.1 is no page:\n{page}");
        for word in words {
            assert!(page.contains(&escaped(word)), "{name}.1 does not say {word}:\n{page}");
        }
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), pages.len(), "there are pages of no command");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_what_stands_below_the_options() {
    let world = World::new(Router::new()).await;
    let dir = world.home.path();
    assert_eq!(world.run(&["man", dir.to_str().unwrap()], &[], "").await.code, 0);
    let page = std::fs::read_to_string(dir.join("dinp.1")).unwrap();
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    let wanted = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "\"GLOBAL OPTIONS\"",
        "COMMANDS",
        "EXAMPLES",
        "ENVIRONMENT",
        "FILES",
        "\"EXIT STATUS\"",
        "\"SEE ALSO\"",
    ];
    assert_eq!(sections, wanted);
    let help = world.run(&["--help"], &[], "").await.stdout;
    assert!(!help.contains("  man "), "{help}");
}
