//! Where in a text something is wrong, for messages that name the line and quote nothing of it: it may hold secrets.

/// The line of the byte at `offset`, from 1.
pub fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// What is wrong with a TOML text, in one line that names its key where there is one.
pub fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ", ");
    match error.span() {
        Some(span) => match key(text, span.start) {
            Some(key) => format!("line {}: `{key}`: {message}", line(text, span.start)),
            None => format!("line {}: {message}", line(text, span.start)),
        },
        None => value_problem(error),
    }
}

/// The key whose value has the byte at `offset`, where one stands before it on its line.
fn key(text: &str, offset: usize) -> Option<&str> {
    let before = text.get(..offset)?.rsplit('\n').next()?;
    let key = before.rsplit_once('=')?.0.trim_end();
    let ends =
        |(at, c): (usize, char)| (!(c.is_ascii_alphanumeric() || "-_.".contains(c))).then_some(at + c.len_utf8());
    let from = key.char_indices().rev().find_map(ends).unwrap_or(0);
    Some(&key[from..]).filter(|key| !key.is_empty() && !key.starts_with('.'))
}

/// The same for what was read from a value, which has no lines.
pub fn value_problem(error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ", ");
    // Without the text that it was read from, the last line of what an error says names the key.
    let mut error = error.clone();
    error.set_input(None);
    let said = error.to_string();
    let key = said.trim_end().rsplit('\n').next().and_then(|last| last.strip_prefix("in `")?.strip_suffix('`'));
    match key {
        Some(key) => format!("`{key}`: {message}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_line_and_quotes_nothing_of_it() {
        for text in ["a = 1\ntoken = \"hunter2\n", "a = 1\ntoken = \"hunter2\" 5\n", "a = 1\ntoken = hunter2\n"] {
            let error = toml::from_str::<toml::Table>(text).unwrap_err();
            let problem = toml_problem(text, &error);
            assert!(problem.starts_with("line 2: "), "{problem}");
            assert!(!problem.contains("hunter2") && !problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn a_problem_with_a_value_names_its_key() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only read")]
        struct Read {
            a: u8,
            b: Option<std::collections::BTreeMap<String, u8>>,
        }
        for (text, expected) in [
            ("a = 'x'", "line 1: `a`: "),
            ("a = 1\n  b = { c = 1, d-e = 'x' }", "line 2: `d-e`: "),
            ("a = 1\n[b]\nc = 7000", "line 3: `c`: "),
        ] {
            let problem = toml_problem(text, &toml::from_str::<Read>(text).unwrap_err());
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
