//! Completions and man pages: every command is in them, and shells and `man` can read them.

use std::{
    fs,
    io::{ErrorKind, Write},
    process::{Command, Stdio},
};

use super::{COMMANDS, TestFolder};

/// The commands that the help lists.
fn visible_commands() -> impl Iterator<Item = &'static str> {
    COMMANDS.into_iter().filter(|command| !["", "schema"].contains(command))
}

/// The output of a program for an input; `None` if it is not installed.
fn output(program: &str, args: &[&str], input: &str) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        child => child.unwrap(),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Some((output.status.success(), text))
}

#[test]
fn completions_of_every_shell_have_every_command() {
    let folder = TestFolder::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let outcome = folder.run(&["completions", shell]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{shell}");
        for command in visible_commands() {
            let name = command.rsplit(' ').next().unwrap();
            assert!(outcome.stdout.contains(name), "{shell}: {command}");
        }
        assert!(outcome.stdout.contains("--token-file") || outcome.stdout.contains("token-file"), "{shell}");
        // The shells that are not installed cannot check their script.
        if let ("bash" | "zsh", Some((is_valid, message))) = (shell, output(shell, &["-n"], &outcome.stdout)) {
            assert!(is_valid, "{shell}: {message}");
        }
    }
    let unknown = folder.run(&["completions", "tcsh"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("possible values: bash, elvish, fish, powershell, zsh"), "{}", unknown.stderr);
}

#[test]
fn bash_completes_commands_and_values() {
    let folder = TestFolder::new();
    let script = folder.run(&["completions", "bash"]).stdout;
    // As bash calls it: the command, the word at the cursor and the word before that one.
    let complete = |words: &str, before: &str| {
        let at = words.split(' ').count();
        let call = format!("_polylance polylance '' {before}; echo \"${{COMPREPLY[@]}}\"");
        output("bash", &["--norc"], &format!("{script}\nCOMP_WORDS=({words} '') COMP_CWORD={at}\n{call}\n")).unwrap().1
    };
    let commands = complete("polylance", "polylance");
    for command in visible_commands().filter(|command| !command.contains(' ')) {
        assert!(commands.split_whitespace().any(|word| word == command), "{command}: {commands}");
    }
    assert!(complete("polylance run --progress", "--progress").contains("auto plain none"));
}

#[test]
fn man_pages_of_all_commands_are_written_and_can_be_read() {
    let folder = TestFolder::new();
    let printed = folder.run(&["man"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let written = folder.run(&["man", "share/man1"]);
    assert_eq!((written.code, written.stdout.as_str(), written.stderr.as_str()), (Some(0), "", ""));
    let mut names: Vec<String> = fs::read_dir(folder.path().join("share/man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let page = |command: &str| format!("polylance-{}.1", command.replace(' ', "-"));
    let mut expected: Vec<String> = visible_commands().map(page).collect();
    expected.push("polylance.1".to_owned());
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    for name in names {
        let text = fs::read_to_string(folder.path().join("share/man1").join(&name)).unwrap();
        assert_eq!(text == printed.stdout, name == "polylance.1", "{name}");
        let headings: Vec<&str> = text.lines().filter(|line| line.starts_with(".SH ")).collect();
        assert_eq!(headings[..3], [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"], "{name}");
        assert!(text.contains("\"polylance 0."), "{name}: the version is in the footer");
        if let Some((is_valid, shown)) = output("groff", &["-Kutf8", "-man", "-Tutf8", "-ww", "-P-cbou"], &text) {
            assert!(is_valid && shown.contains("SYNOPSIS") && !shown.contains("warning"), "{name}: {shown}");
        }
    }
}
