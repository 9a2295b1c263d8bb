//! The help that each command prints.

use std::process::Command;

use userland_tests::ringfence_program;

fn help(arguments: &[&str]) -> String {
    let output = Command::new(ringfence_program())
        .args(arguments)
        .arg("--help")
        .output()
        .expect("ringfence");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Text with one space between words, however it was wrapped.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Names of commands and what is said of them, in the list that the help of `ringfence` has.
fn listed(help: &str) -> Vec<(String, String)> {
    let (_, commands) = help.split_once("Commands:\n").expect("a list");
    let (commands, _) = commands.split_once("\n\n").expect("an end of the list");
    // What a name stands in begins with two spaces, what goes on in the next line with more.
    let entries = format!("\n{commands}").replace("\n   ", " ");
    let pairs = entries
        .lines()
        .filter_map(|line| line.trim().split_once(' '));
    pairs
        .map(|(name, about)| (name.to_owned(), unwrapped(about)))
        .collect()
}

/// Nothing that commands share, as their options, takes the place of what a command does.
#[test]
fn the_help_of_a_command_begins_with_what_the_list_says_of_it() {
    let mut commands = listed(&help(&[]));
    commands.retain(|(name, _)| name != "help");
    assert!(
        commands.iter().any(|(name, _)| name == "run"),
        "{commands:?}"
    );
    for (name, about) in commands {
        let text = help(&[&name]);
        assert!(unwrapped(&text).starts_with(&about), "{about:?} in {text}");
        let usage = format!("Usage: ringfence {name} ");
        assert!(
            text.lines()
                .any(|line| format!("{line} ").starts_with(&usage)),
            "{text}"
        );
    }
}

#[test]
fn the_help_of_run_has_the_exit_statuses() {
    let text = help(&["run"]);
    for status in ["125", "126", "127", "128"] {
        assert!(text.contains(status), "{status} in {text}");
    }
}

#[test]
fn the_readme_has_each_option_of_run() {
    let readme = include_str!("../../README.md");
    let text = help(&["run"]);
    let lines = text.lines().map(str::trim_start);
    let names = lines.filter_map(|line| line.strip_prefix("--")?.split([' ', '[']).next());
    let names: Vec<&str> = names.collect();
    assert!(names.contains(&"gpu-memory"), "{text}");
    for name in names {
        let entries = [format!("| `--{name} "), format!("| `--{name}`")];
        assert!(
            entries.iter().any(|entry| readme.contains(entry)),
            "--{name} is not in the README's list of options"
        );
    }
}

/// Lines and words in a text of Markdown that are commands of Ringfence's.
fn commands(text: &str) -> Vec<&str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let spans = text
        .lines()
        .filter(|line| !line.starts_with("    "))
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let all = lines.chain(spans).flat_map(|line| line.split(" && "));
    all.filter_map(|line| line.trim().strip_prefix("ringfence "))
        .collect()
}

/// What people are told to type about containers is what the command line takes.
#[test]
fn the_commands_in_the_documents_on_containers_are_taken() {
    let documents = [
        include_str!("../../docs/CONTAINERS.md"),
        include_str!("../../deploy/kubernetes/README.md"),
    ];
    let commands: Vec<&str> = documents.into_iter().flat_map(commands).collect();
    for engine in ["docker", "podman", "containerd", "crio"] {
        let line = format!("runtime configure {engine}");
        assert!(commands.contains(&line.as_str()), "{line}: {commands:?}");
    }
    for line in commands {
        let words: Vec<&str> = line.split(' ').collect();
        help(&words);
    }
}
