//! Where in a text something is wrong, for messages that name the line and quote nothing of it: it may hold secrets.

/// The line of the byte at `offset`, from 1.
pub fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// What is wrong with a TOML text, in one line.
pub fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ", ");
    match error.span() {
        Some(span) => format!("line {}: {message}", line(text, span.start)),
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
}
