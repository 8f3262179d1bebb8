//! W3C trace context, level 1: which trace an exchange belongs to (<https://www.w3.org/TR/trace-context-1/>).

mod sampler;
mod state;

pub use sampler::Sampler;

use crate::base::chance::Chance;

/// An exchange's place in its trace.
#[derive(Debug, Clone)]
pub struct TraceContext {
    /// 16 bytes, not 0.
    pub trace_id: u128,
    /// Of the exchange's own span.
    pub span_id: u64,
    /// Of the caller's span. None: the trace starts here.
    pub parent: Option<u64>,
    /// Spans are recorded and exported.
    pub sampled: bool,
    /// The gateway takes part in traces: what goes upstream has a parent of the gateway's. Where nothing is exported,
    /// the caller's passes through as it is, since nobody would ever see a span that others name as their parent.
    pub takes_part: bool,
    /// What other tracers want carried along.
    pub state: Option<Box<[u8]>>,
}

impl TraceContext {
    /// Continues the caller's trace, which the one line of `traceparent` and all lines of `tracestate` tell, or starts one.
    /// No sampler: no spans are exported.
    pub fn begin<'a>(
        parent: Option<&[u8]>,
        state: impl Iterator<Item = &'a [u8]>,
        sampler: Option<Sampler>,
        chance: &mut Chance,
    ) -> Self {
        let takes_part = sampler.is_some();
        let span_id = chance.next_u64().max(1);
        if let Some((trace_id, parent, sampled)) = parent.and_then(parse) {
            let sampled = sampler.map_or(sampled, |sampler| sampler.samples(trace_id, Some(sampled)));
            let state = state::read(state.collect());
            return TraceContext { trace_id, span_id, parent: Some(parent), sampled, takes_part, state };
        }
        let trace_id = (u128::from(chance.next_u64().max(1)) << 64) | u128::from(chance.next_u64());
        let sampled = sampler.is_some_and(|sampler| sampler.samples(trace_id, None));
        TraceContext { trace_id, span_id, parent: None, sampled, takes_part, state: None }
    }

    /// The place of what is done for this exchange's sake: under its span.
    pub fn child(&self, chance: &mut Chance) -> Self {
        TraceContext { span_id: chance.next_u64().max(1), parent: Some(self.span_id), ..self.clone() }
    }

    /// What `traceparent` says upstream: that the attempt's span is the parent.
    pub fn parent_of(&self, span_id: u64) -> [u8; 55] {
        format(self.trace_id, span_id, self.sampled)
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; later versions may go on after another dash.
fn parse(line: &[u8]) -> Option<(u128, u64, bool)> {
    let fields = [line.get(0..2)?, line.get(3..35)?, line.get(36..52)?, line.get(53..55)?];
    let dashes = [2, 35, 52].iter().all(|i| line[*i] == b'-');
    let lower = |field: &&[u8]| field.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !dashes || !fields.iter().all(lower) || fields[0] == b"ff" {
        return None;
    }
    if line.len() > 55 && (fields[0] == b"00" || line[55] != b'-') {
        return None;
    }
    let hex = |field: &[u8]| u128::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok();
    let trace_id = hex(fields[1]).filter(|id| *id != 0)?;
    let parent = hex(fields[2]).and_then(|id| u64::try_from(id).ok()).filter(|id| *id != 0)?;
    Some((trace_id, parent, hex(fields[3])? & 1 == 1))
}

fn format(trace_id: u128, span_id: u64, sampled: bool) -> [u8; 55] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut write = |at: usize, bytes: &[u8]| {
        for (place, byte) in line[at..].chunks_exact_mut(2).zip(bytes) {
            place.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    };
    write(3, &trace_id.to_be_bytes());
    write(36, &span_id.to_be_bytes());
    line[54] = if sampled { b'1' } else { b'0' };
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn begin(line: &str) -> TraceContext {
        TraceContext::begin(Some(line.as_bytes()), [].into_iter(), Some(Sampler::of_new_traces(0.0)), &mut Chance(1))
    }

    #[test]
    fn the_callers_trace_is_continued() {
        let context = begin(GOOD);
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert!(context.sampled);
        assert!(!begin(&GOOD.replace("-01", "-00")).sampled);
        assert!(begin(&(GOOD.replace("00-4", "cc-4") + "-what-comes-later")).sampled);
    }

    #[test]
    fn a_bad_traceparent_starts_a_new_trace() {
        let bad = [
            "",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ];
        for line in bad {
            assert_eq!(begin(line).parent, None, "{line}");
        }
    }

    #[test]
    fn what_goes_upstream_reads_back_the_same() {
        let context = begin(GOOD);
        let sent = context.parent_of(7);
        assert_eq!(&sent, b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
        assert_eq!(parse(&sent), Some((context.trace_id, 7, true)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
