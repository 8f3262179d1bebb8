//! `tracestate`: what other tracers want carried along with a trace (W3C trace context, level 1, §3.3.1).

/// The specification asks to carry at least so many characters; of a longer list, members are left out.
const MOST: usize = 512;
/// A member longer than this is left out before others are.
const LONG: usize = 128;

/// The list that goes on: the members of all lines, in order. None: there is none.
pub(super) fn read(lines: Vec<&[u8]>) -> Option<Box<[u8]>> {
    if let [line] = lines[..]
        && line.len() <= MOST
    {
        return Some(line.into());
    }
    let members = lines.iter().flat_map(|line| line.split(|byte| *byte == b','));
    let members = members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()).collect();
    let list = cut(members).join(&b","[..]);
    (!list.is_empty()).then(|| list.into())
}

/// Leaves out whole members until the list is short enough: those that are long first, then any, each time the last one.
fn cut(mut members: Vec<&[u8]>) -> Vec<&[u8]> {
    let mut length = members.iter().map(|member| member.len() + 1).sum::<usize>();
    let most = MOST + 1;
    let mut place = members.len();
    while length > most && place > 0 {
        place -= 1;
        if members[place].len() > LONG {
            length -= members.remove(place).len() + 1;
        }
    }
    while length > most
        && let Some(member) = members.pop()
    {
        length -= member.len() + 1;
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(lines: &[&str]) -> Option<String> {
        read(lines.iter().map(|line| line.as_bytes()).collect()).map(|state| String::from_utf8(state.into()).unwrap())
    }

    fn member(key: &str, length: usize) -> String {
        format!("{key}={}", "x".repeat(length - key.len() - 1))
    }

    #[test]
    fn the_lines_are_one_list_in_their_order() {
        for (lines, expected) in [
            (&[][..], None),
            (&["a=1, b=2"], Some("a=1, b=2")),
            (&["a=1", "b=2,c=3", "a=0"], Some("a=1,b=2,c=3,a=0")),
            (&["a=1,", "", " ,b=2\t"], Some("a=1,b=2")),
            (&["", ","], None),
        ] {
            assert_eq!(state(lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_loses_whole_members() {
        let (a, b, c, d, e) =
            (member("a", 128), member("b", 128), member("c", 128), member("d", 125), member("e", 1 + 1));
        let long = member("l", 129);
        for (lines, expected) in [
            // 512 with its commas, and 514.
            (vec![format!("{a},{b},{c},{d}")], format!("{a},{b},{c},{d}")),
            (vec![format!("{a},{b},{c},{d},{e}")], format!("{a},{b},{c},{d}")),
            (vec![format!("{a},{b}"), format!("{c},{d}"), e.clone()], format!("{a},{b},{c},{d}")),
            // Long ones first, as few as it takes.
            (vec![format!("{long},{a},{b},{c},{e}")], format!("{a},{b},{c},{e}")),
            (vec![format!("{long},{a},{b},{long},{e}")], format!("{long},{a},{b},{e}")),
            (vec![member("a", 600)], String::new()),
            (vec![member("a", 600), e.clone()], e),
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(state(&lines).unwrap_or_default(), expected, "{lines:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_goes_on_fits_and_keeps_its_order(lines in proptest::collection::vec("([a-z]=[a-z]{0,200},? ?){0,6}", 0..5)) {
            let given: Vec<String> = lines.iter().flat_map(|line| line.split(',')).map(|member| member.trim().to_owned()).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            if let Some(state) = state(&lines) {
                proptest::prop_assert!(state.len() <= MOST);
                let mut rest = given.iter();
                for member in state.split(',').map(str::trim) {
                    proptest::prop_assert!(rest.any(|given| given == member), "{}", member);
                }
            }
        }
    }
}
