//! Content codings of responses (RFC 9110 §8.4.1): which one a client likes best, and the bytes in it.

use compression_codecs::brotli::params::EncoderParams;
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::CParameter;
use compression_codecs::{BrotliEncoder, EncodeV2, GzipEncoder, ZstdEncoder};
use serde::Deserialize;
use std::io;

/// Bytes that a codec gives at once.
const STEP: usize = 8 << 10;
/// What a response is worth: half of what the best would take away, at a tenth of its cost.
const BROTLI: i32 = 4;
const ZSTD: i32 = 3;
const GZIP: i32 = 6;
/// How far back a codec looks, as a power of two: its memory for each response.
const WINDOW: u8 = 18;

/// A coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878).
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// As `content-encoding` says it.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Br => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// The one of these that weighs most for a client that sent these lines of `accept-encoding` (RFC 9110 §12.5.3), the
    /// first of several that weigh the same. None: none at all, or it likes better what is not coded.
    pub fn chosen<'a>(own: &[Coding], lines: impl Iterator<Item = &'a [u8]>) -> Option<Coding> {
        let mut weights = [None; 3];
        let (mut any, mut identity) = (None, None);
        let elements = lines.flat_map(|line| line.split(|byte| *byte == b',')).take(64);
        for element in elements.filter_map(|element| std::str::from_utf8(element).ok()) {
            let (name, weight) = element.split_once(';').map_or((element, Some(1000)), |(name, of)| (name, weight(of)));
            let (name, Some(weight)) = (name.trim(), weight) else { continue };
            let at = match name {
                "*" => &mut any,
                name if name.eq_ignore_ascii_case("identity") => &mut identity,
                name if name.eq_ignore_ascii_case("br") => &mut weights[0],
                name if name.eq_ignore_ascii_case("zstd") => &mut weights[1],
                name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => &mut weights[2],
                _ => continue,
            };
            *at = Some(weight);
        }
        let of = |coding: Coding| weights.get(coding as usize).copied().flatten().or(any).unwrap_or(0);
        let best = own.iter().rev().copied().max_by_key(|coding| of(*coding))?;
        (of(best) > 0 && of(best) >= identity.unwrap_or(0)).then_some(best)
    }
}

/// A weight in thousandths (RFC 9110 §12.4.2). None: it is none, so what it belongs to is passed by.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    let (whole, part) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let good =
        name.trim().eq_ignore_ascii_case("q") && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    let part: u16 = if part.is_empty() { 0 } else { format!("{part:0<3}").parse().ok()? };
    match (whole, part) {
        ("0", part) if good => Some(part),
        ("1", 0) if good => Some(1000),
        _ => None,
    }
}

/// Codes one body, piece by piece.
pub struct Coder {
    encoder: Box<dyn EncodeV2>,
    /// Something went in that has not come out.
    holds: bool,
    step: Box<[u8; STEP]>,
}

impl std::fmt::Debug for Coder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coder")
    }
}

impl Coder {
    /// In this coding.
    pub fn new(coding: Coding) -> Self {
        let encoder: Box<dyn EncodeV2> = match coding {
            Coding::Br => {
                let params = EncoderParams::default().quality(Level::Precise(BROTLI)).window_size(i32::from(WINDOW));
                Box::new(BrotliEncoder::new(params))
            }
            Coding::Zstd => Box::new(ZstdEncoder::new_with_params(ZSTD, &[CParameter::window_log(u32::from(WINDOW))])),
            Coding::Gzip => Box::new(GzipEncoder::new(Level::Precise(GZIP).into())),
        };
        Coder { encoder, holds: false, step: Box::new([0; STEP]) }
    }

    /// A piece goes in; whatever comes out is added to `out`.
    ///
    /// # Errors
    /// The codec's own; none is known to happen.
    pub fn encode(&mut self, piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut input = PartialBuffer::new(piece);
        while !input.unwritten().is_empty() {
            let before = input.written_len();
            let mut buffer = WriteBuffer::new_initialized(&mut self.step[..]);
            self.encoder.encode(&mut input, &mut buffer)?;
            out.extend_from_slice(buffer.written());
            if input.written_len() == before && buffer.written_len() == 0 {
                return Err(io::Error::other("the codec takes nothing and gives nothing"));
            }
        }
        self.holds |= !piece.is_empty();
        Ok(())
    }

    /// All that went in comes out, so that whoever waits for it has it.
    ///
    /// # Errors
    /// As of [`Coder::encode`].
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while std::mem::take(&mut self.holds) {
            let mut buffer = WriteBuffer::new_initialized(&mut self.step[..]);
            self.holds = !self.encoder.flush(&mut buffer)?;
            out.extend_from_slice(buffer.written());
        }
        Ok(())
    }

    /// The end.
    ///
    /// # Errors
    /// As of [`Coder::encode`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut buffer = WriteBuffer::new_initialized(&mut self.step[..]);
            let done = self.encoder.finish(&mut buffer)?;
            out.extend_from_slice(buffer.written());
            if done {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    fn chosen(line: &str) -> Option<&'static str> {
        Coding::chosen(&OWN, std::iter::once(line.as_bytes())).map(Coding::name)
    }

    #[test]
    fn what_weighs_most_is_chosen_and_nothing_that_is_refused() {
        for (line, expected) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, br", Some("br")),
            ("GZIP;q=1, br;Q=0.9", Some("gzip")),
            ("br;q=0.001, gzip;q=0", Some("br")),
            ("*", Some("zstd")),
            ("*;q=0.5, zstd;q=0, br;q=0.4", Some("gzip")),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("identity;q=0, gzip", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("gzip;q=0", None),
            ("gzip;q=0.0000, br;q=2, zstd;q=1.001", None),
            ("deflate", None),
            ("", None),
        ] {
            assert_eq!(chosen(line), expected, "{line}");
        }
        assert_eq!(Coding::chosen(&OWN, std::iter::empty()), None);
        assert_eq!(Coding::chosen(&[], std::iter::once(&b"*"[..])), None);
    }

    /// As another library reads it.
    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        use compression_codecs::{BrotliDecoder, DecodeV2, GzipDecoder, ZstdDecoder};
        let mut decoder: Box<dyn DecodeV2> = match coding {
            Coding::Br => Box::new(BrotliDecoder::new()),
            Coding::Zstd => Box::new(ZstdDecoder::new()),
            Coding::Gzip => Box::new(GzipDecoder::new()),
        };
        let (mut input, mut out, mut step) = (PartialBuffer::new(coded), Vec::new(), vec![0; STEP]);
        loop {
            let before = input.written_len();
            let mut buffer = WriteBuffer::new_initialized(&mut step);
            // Of a part, there is nothing more to read; gzip's decoder calls that an error.
            let done = match decoder.decode(&mut input, &mut buffer) {
                Ok(done) => done,
                Err(error) => {
                    assert!(input.unwritten().is_empty(), "{error}");
                    return out;
                }
            };
            out.extend_from_slice(buffer.written());
            if done || (input.written_len() == before && buffer.written_len() == 0) {
                return out;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_goes_in_comes_out_at_each_flush(pieces in prop::collection::vec((prop::collection::vec(0u8..4, 0..20_000), any::<bool>()), 0..6)) {
            for coding in OWN {
                let (mut coder, mut coded, mut whole) = (Coder::new(coding), Vec::new(), Vec::new());
                for (piece, flush) in &pieces {
                    coder.encode(piece, &mut coded).unwrap();
                    whole.extend_from_slice(piece);
                    if *flush {
                        coder.flush(&mut coded).unwrap();
                        prop_assert_eq!(decoded(coding, &coded), whole.clone());
                    }
                }
                coder.finish(&mut coded).unwrap();
                prop_assert_eq!(decoded(coding, &coded), whole);
            }
        }

        #[test]
        fn any_line_is_read(line: Vec<u8>) {
            let _ = Coding::chosen(&OWN, std::iter::once(&line[..]));
        }
    }
}
