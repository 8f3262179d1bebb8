//! Entries of a registry that cannot be used: named with the reason, so that whoever registered them can be told.

use serde::{Deserialize, Serialize};

/// So many are named; the rest is only counted.
const MOST: usize = 20;
/// Of a name and of a reason, characters.
const SHOWN: usize = 160;

/// One entry that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// What the registry calls it, with its address as it stands there.
    pub entry: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Notes one more, as far as there is room.
pub fn note(left_out: &mut Vec<LeftOut>, entry: &str, reason: &str) {
    if left_out.len() < MOST {
        left_out.push(LeftOut { entry: shown(entry), reason: shown(reason) });
    }
}

/// Registries hold what anybody wrote: bounded, on one line.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_bounded_and_on_one_line() {
        let mut left_out = Vec::new();
        for _ in 0..MOST + 5 {
            note(&mut left_out, "a\nb", &"é".repeat(SHOWN + 5));
        }
        assert_eq!(left_out.len(), MOST);
        assert_eq!(left_out[0], LeftOut { entry: "a b".to_owned(), reason: "é".repeat(SHOWN) });
    }
}
