//! Command lines that users write into an option, split into words as a shell does.

use std::path::Path;

use thiserror::Error;

/// A command line that ends before one of its words does.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the command {command:?} ends within {within}")]
pub struct UnfinishedCommand {
    /// The whole command line.
    pub command: String,
    /// What is open at its end: quotes, or an escape.
    pub within: &'static str,
}

/// The program and its arguments. Blanks separate words; a blank in single or double quotes, or behind a backslash, belongs to
/// its word. Nothing is expanded: `$`, `*` and `~` stand for themselves. A command that is the path of a file is one word.
///
/// ```
/// let words = purlin_processes::command_words(r#"boot --python="/my venv/bin/python""#);
/// assert_eq!(words.unwrap(), ["boot", "--python=/my venv/bin/python"]);
/// ```
///
/// # Errors
/// When quotes are not closed, or nothing follows a backslash.
pub fn command_words(command: &str) -> Result<Vec<String>, UnfinishedCommand> {
    if Path::new(command).is_file() {
        return Ok(vec![command.to_owned()]);
    }
    let unended = |within| UnfinishedCommand {
        command: command.to_owned(),
        within,
    };
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command.chars();
    while let Some(char) = rest.next() {
        if matches!(char, ' ' | '\t' | '\n') {
            words.extend(word.take());
            continue;
        }
        // A pair of quotes alone is a word too, an empty one.
        let word = word.get_or_insert_default();
        match char {
            '\'' => loop {
                match rest.next().ok_or_else(|| unended("single quotes"))? {
                    '\'' => break,
                    inner => word.push(inner),
                }
            },
            '"' => loop {
                match rest.next().ok_or_else(|| unended("double quotes"))? {
                    '"' => break,
                    '\\' => match rest.next().ok_or_else(|| unended("double quotes"))? {
                        '\n' => {}
                        escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                        other => word.extend(['\\', other]),
                    },
                    inner => word.push(inner),
                }
            },
            '\\' => match rest.next().ok_or_else(|| unended("an escape by a backslash"))? {
                '\n' => {}
                escaped => word.push(escaped),
            },
            other => word.push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for command in [
            "",
            "  ",
            "boot",
            " boot  --a=1\t--b\n",
            "boot --a='x y' \"z  w\"",
            "boot --a=\"it's\" 'say \"hi\"'",
            r#"a\ b "c\"d" 'e\f' g\\h "\i" "\\""#,
            "'' x \"\"",
            "one'two'\"three\"four",
            "ä\u{a0}'ö ü'",
        ] {
            let script = format!("printf '%s\\0' {command}");
            let shell = std::process::Command::new("sh")
                .arg("-c")
                .arg(script)
                .output()
                .unwrap();
            let shell = String::from_utf8(shell.stdout).unwrap();
            let mut expected: Vec<&str> = shell.split_terminator('\0').collect();
            if command.trim().is_empty() {
                // Without arguments printf writes its format once.
                expected.clear();
            }
            assert_eq!(command_words(command).unwrap(), expected, "{command:?}");
        }
    }

    #[test]
    fn nothing_is_expanded() {
        assert_eq!(
            command_words("$HOME `x` * ~").unwrap(),
            ["$HOME", "`x`", "*", "~"]
        );
    }

    #[test]
    fn what_is_not_ended_is_an_error() {
        for command in ["a 'b", "a \"b", "a \"b\\", "a\\"] {
            let error = command_words(command).unwrap_err();
            assert!(error.to_string().contains("ends within"), "{error}");
        }
    }

    #[test]
    fn the_path_of_a_file_is_one_word() {
        let folder = tempfile::Builder::new().prefix("two words ").tempdir().unwrap();
        let file = folder.path().join("my boot");
        std::fs::write(&file, "").unwrap();
        let path = file.to_str().unwrap();
        assert_eq!(command_words(path).unwrap(), [path]);
    }
}
