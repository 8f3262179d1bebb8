//! `metrics`: numbers that a policy counts.

use crate::policy::bindings::wayside::policy::metrics::Host;
use crate::policy::context::Context;
use crate::policy::metrics::Refused;
use crate::service::decision::LogLine;
use tracing::Level;

/// Bytes of a metric's or a label's name.
const NAME: usize = 64;
/// Labels of one call.
const LABELS: usize = 8;
/// Bytes of a label's value.
const VALUE: usize = 128;

impl Host for Context {
    fn count(&mut self, name: String, delta: u32, mut labels: Vec<(String, String)>) {
        if self.measurable("metrics.count", &name, &labels)
            && let Err(refused) = self.live.metrics.count(&name, delta.into(), &mut labels)
        {
            self.refused("metrics.count", &name, "histogram", refused);
        }
    }

    fn observe(&mut self, name: String, value: f64, mut labels: Vec<(String, String)>) {
        if self.measurable("metrics.observe", &name, &labels)
            && value.is_finite()
            && let Err(refused) = self.live.metrics.observe(&name, value, &mut labels)
        {
            self.refused("metrics.observe", &name, "counter", refused);
        }
    }
}

impl Context {
    /// A metric of the other kind is a fault; a name of the gateway's own costs the number alone, and is told in the log.
    #[cold]
    fn refused(&mut self, function: &str, name: &str, other: &str, refused: Refused) {
        match refused {
            Refused::WrongKind => self.bad(format!("`{function}`: `{name}` is a {other}")),
            Refused::Own { first: true } => {
                let message = format!(
                    "`{function}`: `{name}` is not shown, since `wayside_policy_{name}` would look like a metric of the \
                     gateway's own: choose another name"
                );
                self.call.logs.push(LogLine { level: Level::WARN, message });
            }
            Refused::Own { first: false } => {}
        }
    }

    fn measurable(&mut self, function: &str, name: &str, labels: &[(String, String)]) -> bool {
        if !self.deciding(function) {
            return false;
        }
        match problem(name, labels) {
            Some(problem) => self.bad(format!("`{function}`: {problem}")),
            None => return true,
        }
        false
    }
}

fn problem(name: &str, labels: &[(String, String)]) -> Option<String> {
    if !is_name(name) {
        return Some("the name is none (expected `[a-z][a-z0-9_]*`, at most 64 bytes)".into());
    }
    if labels.len() > LABELS {
        return Some(format!("more than {LABELS} labels"));
    }
    for (index, (label, value)) in labels.iter().enumerate() {
        if !is_name(label) || matches!(label.as_str(), "policy" | "le") {
            return Some("a label's name is none (expected `[a-z][a-z0-9_]*`, not `policy` or `le`)".into());
        }
        if value.len() > VALUE {
            return Some(format!("the value of label `{label}` is longer than {VALUE} bytes"));
        }
        if labels[..index].iter().any(|(earlier, _)| earlier == label) {
            return Some(format!("label `{label}` comes twice"));
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    let rest = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    name.len() <= NAME && name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_checked() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(problem("hits_2", &[label("a", "x"), label("b", "")]), None);
        for name in ["", "Hits", "2hits", "_hits", "a-b", &"x".repeat(NAME + 1)] {
            assert!(problem(name, &[]).is_some(), "{name}");
        }
        for labels in [
            vec![label("policy", "x")],
            vec![label("le", "x")],
            vec![label("A", "x")],
            vec![label("a", "x"), label("a", "y")],
            vec![label("a", &"x".repeat(VALUE + 1))],
            (0..=LABELS).map(|i| label(&format!("l{i}"), "x")).collect(),
        ] {
            assert!(problem("hits", &labels).is_some(), "{labels:?}");
        }
    }
}
